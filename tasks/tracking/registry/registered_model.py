"""The registered model of a suite: its versions, and the aliases `candidate` and `champion`.

A run offers its best merged model. It becomes a version, and `candidate`; once in its life a
version is judged against the champion of that day. What a person decided, no later run undoes.
"""

import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from mlflow.entities import LoggedModel, Metric
from mlflow.exceptions import MlflowException

from adamerge_core.errors import InputError
from tasks.suite.tolerances import Tolerances
from tasks.tracking.found_run import FoundRun
from tasks.tracking.registry import judgement, version_page
from tasks.tracking.registry import versions as tags
from tasks.tracking.registry.judgement import Judgement
from tasks.tracking.registry.model_files import write_model
from tasks.tracking.registry.offers import Offer
from tasks.tracking.registry.versions import Details, Version
from tasks.tracking.runs import Runs, is_absent

CANDIDATE, CHAMPION = "candidate", "champion"

_MOST_CHAMPIONS = 200


def model_name(suite: str) -> str:
    """Name the registered model of a suite."""
    return f"{suite}-merged"


class ModelRegistry:
    """The registered model of one suite."""

    def __init__(self, runs: Runs, suite: str) -> None:
        self._runs, self._client = runs, runs.client
        self._suite, self.name = suite, model_name(suite)

    def versions(self) -> list[Version]:
        """List all versions, the latest first."""
        found = self._client.search_model_versions(f"name = '{self.name}'")
        # what a search gives has no aliases
        whole = [self._client.get_model_version(self.name, each.version) for each in found]
        return sorted(map(Version.of, whole), key=lambda each: -int(each.number))

    def version(self, number: str) -> Version:
        """Find a version by its number. Raises InputError, which names those there are."""
        found = self.versions()
        chosen = next((each for each in found if each.number == number), None)
        if chosen is None:
            there = ", ".join(each.number for each in reversed(found)) or "none yet (adamerge run)"
            raise InputError(f"version {number!r} of {self.name}: the versions are {there}")
        return chosen

    def holder(self, alias: str) -> Version | None:
        """Find the version that has an alias."""
        try:
            return Version.of(self._client.get_model_version_by_alias(self.name, alias))
        except MlflowException as error:  # no such model, no such alias
            if is_absent(error):
                return None
            raise

    # --- what a run does ---------------------------------------------------------------------

    def offer(self, offer: Offer, tolerances: Tolerances, run_id: str, time: float) -> None:
        """Make a version of the model that a run ended with, judge it, and call it `candidate`.

        run_id: of the pipeline; time: of its end, in seconds. Done twice, it is as done once.
        """
        self._make_registered_model()
        found = (each for each in self.versions() if each.details.content == offer.content)
        version = next(found, None) or self._new_version(offer, run_id, time)
        self._settle(version, offer, tolerances)
        self._client.set_registered_model_alias(self.name, CANDIDATE, version.number)

    def _make_registered_model(self) -> None:
        if not self._client.search_registered_models(f"name = '{self.name}'"):
            about = version_page.about_model(self._suite, CANDIDATE, CHAMPION)
            self._client.create_registered_model(self.name, description=about)

    def _new_version(self, offer: Offer, run_id: str, time: float) -> Version:
        run = FoundRun.of(self._client.get_run(run_id))
        row = offer.row
        details = Details(
            content=offer.content,
            seed=row.seed,
            held_out=row.accuracies,
            test_images=offer.images,
            run=run_id,
            run_name=run.tags.get("mlflow.runName", run_id),
            unloadable="" if offer.record else f"cannot be loaded: {offer.fault}",
        )
        facts = {
            tags.METHOD: row.method,
            tags.AVERAGE: f"{row.average:.2f}",
            tags.PATH: offer.path.as_posix(),
            tags.MD5: offer.md5,
            tags.DETAILS: json.dumps(asdict(details)),
        }
        model = self._logged_model(offer, run_id, time)
        made = self._client.create_model_version(
            self.name,
            source=f"models:/{model.model_id}",
            run_id=model.source_run_id,
            model_id=model.model_id,
            tags=facts,
        )
        return Version.of(made)

    def _logged_model(self, offer: Offer, run_id: str, time: float) -> LoggedModel:
        """Find or make the logged model behind a version, with its MLmodel file and its measures.

        The run that it comes from is the one that wrote the weights, else the pipeline's.
        """
        experiment = self._runs.experiment(self._suite)
        weights = self._runs.find({offer.path.as_posix(): offer.md5})
        source = weights.run_id if weights else run_id
        conditions = f"tags.`{tags.CONTENT}` = '{offer.content}'"
        found = self._client.search_logged_models([experiment], conditions, max_results=1)
        model = found[0] if found else None
        if model is None:
            model = self._client.create_logged_model(
                experiment,
                name=self.name,
                source_run_id=source,
                tags={tags.CONTENT: offer.content},
                params={"method": offer.row.method, "seed": str(offer.row.seed)},
                model_type="merged model",
            )
        if offer.record:
            with tempfile.TemporaryDirectory() as folder:
                place = Path(folder, "model")
                write_model(place, offer.record, model.model_id, source)
                self._client.log_model_artifacts(model.model_id, str(place))
        self._measure(model, offer, source, time)
        return self._client.finalize_logged_model(model.model_id, "READY")

    def _measure(self, model: LoggedModel, offer: Offer, source: str, time: float) -> None:
        """Log the accuracies as the model's, on the run that measured them."""
        measured = self._runs.find(offer.evaluation)
        run_id = measured.run_id if measured else source
        points = [
            Metric(f"held_out/{name}", value, int(time * 1000), 0, model_id=model.model_id)
            for name, value in offer.row.accuracies.items()
        ]
        self._client.log_batch(run_id, metrics=points)

    def _settle(self, version: Version, offer: Offer, tolerances: Tolerances) -> None:
        """Judge a version, say so on it, and move `champion` if that is what came out.

        What was judged is kept before anything moves: cut off, it is carried out, not done anew.
        """
        kept = json.loads(version.tags.get(tags.JUDGEMENT, "{}"))
        if kept.get("done"):
            return
        if not kept:
            kept = asdict(self._judged(version, offer, tolerances))
            self._tag(version.number, tags.JUDGEMENT, json.dumps(kept))
        if kept["moves"]:
            self._crown(version.number)
        self._tag(version.number, tags.JUDGEMENT, json.dumps({**kept, "done": True}))

    def _judged(self, version: Version, offer: Offer, tolerances: Tolerances) -> Judgement:
        """Judge a version, and write so into its description."""
        champion = self.holder(CHAMPION)
        before = champion.measures if champion else None
        if fault := version.details.unloadable:
            judged = Judgement(False, fault)
        else:
            judged = judgement.judge(version.measures, before, tolerances)
        table = judgement.table(version.measures, before)
        run = FoundRun.of(self._client.get_run(version.details.run))
        text = version_page.describe(self.name, version.number, offer, judged, table, run)
        self._client.update_model_version(self.name, version.number, text)
        return judged

    # --- what a person does --------------------------------------------------------------------

    def promote(self, number: str, decision: "Decision") -> Version:
        """Make a version champion. Raises InputError where it is it, or cannot be loaded."""
        version, champion = self.version(number), self.holder(CHAMPION)
        if fault := version.details.unloadable:
            raise InputError(f"version {number} of {self.name}: {fault}; promote another")
        if champion and champion.number == number:
            raise InputError(f"version {number} of {self.name} is the champion already")
        self._replace(champion, version, "promoted", decision)
        self._crown(number)
        return version

    def roll_back(self, decision: "Decision") -> Version:
        """Make the champion before the present one champion again. Raises InputError where there is
        none.
        """
        champion, numbers = self.holder(CHAMPION), self._champions()
        there = {each.number for each in self.versions()}
        before = [number for number in numbers if number in there]
        while before and champion and before[-1] == champion.number:
            before.pop()
        if champion is None or not before:
            raise InputError(
                f"{self.name}: no version was champion before; `adamerge models promote N` makes "
                "one"
            )
        version = self.version(before[-1])
        self._replace(champion, version, "brought back", decision)
        self._client.set_registered_model_alias(self.name, CHAMPION, version.number)
        self._remember(before)
        return version

    def _replace(
        self, champion: Version | None, version: Version, verb: str, decision: "Decision"
    ) -> None:
        """Note on both versions who decided, when and why."""
        self._note(version, f"{verb} by {decision}")
        if champion:
            self._note(champion, f"replaced by version {version.number}, {verb} by {decision}")

    def _note(self, version: Version, line: str) -> None:
        text = version_page.with_note(version.description, line)
        self._client.update_model_version(self.name, version.number, text)
        self._tag(version.number, tags.BY_HAND, line)

    # --- the champions so far --------------------------------------------------------------------

    def _crown(self, number: str) -> None:
        """Make a version champion, and the last of the champions so far; cut off between the two,
        the second is made up for.
        """
        champion, numbers = self.holder(CHAMPION), self._champions()
        last = numbers[-1] if numbers else None
        if champion and champion.number not in (last, number):  # an alias that was set elsewhere
            numbers.append(champion.number)
        if last != number:
            numbers.append(number)
        self._client.set_registered_model_alias(self.name, CHAMPION, number)
        self._remember(numbers)

    def _champions(self) -> list[str]:
        kept = self._client.get_registered_model(self.name).tags
        return list(json.loads(kept.get(tags.CHAMPIONS, "[]")))

    def _remember(self, numbers: list[str]) -> None:
        kept = json.dumps(numbers[-_MOST_CHAMPIONS:])
        self._client.set_registered_model_tag(self.name, tags.CHAMPIONS, kept)

    def _tag(self, number: str, key: str, value: str) -> None:
        self._client.set_model_version_tag(self.name, number, key, value)


@dataclass(frozen=True)
class Decision:
    """What a person decided: who, when, and why."""

    who: str
    when: str
    why: str

    def __str__(self) -> str:
        return f"{self.who}, {self.when}: {self.why}"
