"""The settings of the experiment `deployment`: conditions, each with a kind and its parameters."""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationError

from adamerge_core.vision.corruptions import CORRUPTIONS
from tasks.suite.experiments.experiment import Entries, Experiment
from tasks.suite.experiments.tables import UNDISTURBED
from tasks.suite.fields import MANY, Images, Name, Section, Seed, lines_of, one_of, shown
from tasks.suite.methods import AdaptMethod
from tasks.suite.sections import Severity


class Condition(Section):
    """What is other than it should be while coefficients are learned."""

    kind: ClassVar[str]
    in_models: ClassVar[bool] = False
    """Whether it changes what is merged, and so the rules too."""

    @property
    def text(self) -> str:
        """What it does, for people."""
        raise NotImplementedError


class MissingClasses(Condition):
    """Label shift: of some classes no image comes."""

    kind = "missing_classes"

    share: Annotated[float, Field(gt=0, lt=1, strict=True)]
    """Of each task's classes; one stays at least."""

    @property
    def text(self) -> str:
        return f"no image of {100 * self.share:g} % of each task's classes"


class LongTail(Condition):
    """Class frequencies that fall geometrically."""

    kind = "long_tail"

    imbalance: Annotated[float, Field(gt=1, le=10**6, strict=True, allow_inf_nan=False)]
    """How many times as frequent the first class is as the last."""

    @property
    def text(self) -> str:
        return f"classes from frequent to rare, the first {self.imbalance:g} times as frequent"


class Corrupted(Condition):
    """Noise in the images adapted on alone."""

    kind = "corrupted"

    corruption: Annotated[str, one_of(lambda: CORRUPTIONS)]
    severity: Severity

    @property
    def text(self) -> str:
        words = self.corruption.replace("_", " ")
        return f"{words} of severity {self.severity} in the images adapted on alone"


class OtherImages(Condition):
    """A task's stream that has another task's images."""

    kind = "other_images"

    task: Name
    images_of: Name

    @property
    def text(self) -> str:
        return f"images of {self.images_of} come as those of {self.task}"


class NoImages(Condition):
    """A task of which no image comes."""

    kind = "no_images"

    task: Name

    @property
    def text(self) -> str:
        return f"no image of {self.task}; adapted on the others"


class WrongExpert(Condition):
    """Another task's fine-tuned model, handed in under a task's name."""

    kind = "wrong_expert"
    in_models = True

    task: Name
    expert_of: Name

    @property
    def text(self) -> str:
        return f"the model of {self.expert_of} handed in as that of {self.task}"


class Batch(Condition):
    """Other batches of the same number of images."""

    kind = "batch"

    images_per_task: Images

    @property
    def text(self) -> str:
        return f"batches of {self.images_per_task} a task, as many images in all"


class Order(Condition):
    """A stream that brings one task at a time; every task has as many steps."""

    kind = "order"

    order: Literal["one_task_a_step", "task_after_task"]

    @property
    def text(self) -> str:
        if self.order == "one_task_a_step":
            return "one task a step, in turns"
        return "one task after the other, each only once"


KINDS: dict[str, type[Condition]] = {
    each.kind: each
    for each in (
        MissingClasses,
        LongTail,
        Corrupted,
        OtherImages,
        NoImages,
        WrongExpert,
        Batch,
        Order,
    )
}
"""By the name that settings give."""


def read_condition(entry: dict[str, Any]) -> Condition:
    """Read a condition that is well-formed."""
    given = {key: value for key, value in entry.items() if key != "kind"}
    return KINDS[entry["kind"]].model_validate(given)


class Deployment(Experiment):
    """What adaptations reach under conditions that a deployment meets."""

    key = "experiments.deployment"

    conditions: Annotated[dict[Name, Entries], Field(min_length=1, max_length=MANY)]
    images: Images
    """The first so many of those that the held-out protocol adapts on, of each task."""
    seed: Seed
    """Of the classes that are missing or rare, and of noise."""
    methods: Annotated[Entries, Field(min_length=1, max_length=MANY)]
    """Adaptations, and rules to hold them against."""

    @property
    def names(self) -> tuple[str, ...]:
        """What is measured, in the order of the page: the undisturbed, then each condition."""
        return (UNDISTURBED, *self.conditions)

    @property
    def disturbed(self) -> dict[str, Condition]:
        """The conditions by name."""
        return {name: read_condition(entry) for name, entry in self.conditions.items()}

    def _forms(self) -> list[str]:
        """List conditions that are not well-formed."""
        faults = []
        for name, entry in self.conditions.items():
            where = f"{self.key}.conditions.{name}"
            if name == UNDISTURBED:
                faults.append(f"{where}: is there anyway, without a disturbance; remove it")
            elif not isinstance(entry.get("kind"), str) or entry["kind"] not in KINDS:
                known = ", ".join(KINDS)
                faults.append(f"{where}.kind = {shown(entry.get('kind'))}: must be one of {known}")
            else:
                try:
                    read_condition(entry)
                except ValidationError as error:
                    faults += lines_of(error, f"{where}.")
        return faults

    def faults_of_tasks(self, tasks: Sequence[str]) -> list[str]:
        """List conditions that are not well-formed, name no task, or one task twice."""
        faults = self._forms()
        for name, entry in self.conditions.items():
            where = f"{self.key}.conditions.{name}"
            given = {k: entry[k] for k in ("task", "images_of", "expert_of") if k in entry}
            faults += [
                f"{where}.{key} = {shown(task)}: must be one of tasks: {', '.join(tasks)}"
                for key, task in given.items()
                if isinstance(task, str) and task not in tasks
            ]
            if len(given) == 2 and len(set(map(str, given.values()))) == 1:
                faults.append(f"{where}: {' and '.join(given)} are one task; give two")
        return faults

    def faults_of_methods(self) -> list[str]:
        """List what keeps the methods from the conditions: no adaptation, uneven batches."""
        faults = self._forms()
        adapted = {n: m for n, m in self.merging.items() if isinstance(m, AdaptMethod)}
        if not adapted:
            faults.append(f"{self.key}.methods: has no adaptation to disturb; add one")
        faults += [
            f"{self.key}.methods.{name}: learns from true labels, which no stream has; remove it"
            for name, method in adapted.items()
            if method.supervised
        ]
        if faults:
            return faults
        batches = {n: c.images_per_task for n, c in self.disturbed.items() if isinstance(c, Batch)}
        return [
            f"{self.key}.conditions.{name}.images_per_task = {size}: {method} sees "
            f"{each.settings.steps * each.settings.images_per_task} images of a task in one batch "
            "a step, no multiple of it; give a divisor"
            for name, size in batches.items()
            for method, each in adapted.items()
            if each.settings.steps * each.settings.images_per_task % size
        ]
