"""Rules over their scaling, beside the suite's adaptations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from tasks.graph import paths
from tasks.report import measurements
from tasks.report.catalogue import looks
from tasks.report.charts import Level, LineChart, Mark, Series
from tasks.report.content import Cell, Content, Line, Table, shade
from tasks.report.experiments.wording import charted, commands, heights, seeds_of
from tasks.report.results import experiment_csv
from tasks.report.rows import AVERAGE
from tasks.report.summaries import Summary, best_by_column, cells, lead, percent, shown
from tasks.shared.long_tables import ACCURACY, ENTROPY

if TYPE_CHECKING:
    from tasks.suite.experiments.sensitivity import Sensitivity
    from tasks.suite.schema import Suite

TITLE = "Scaling"
QUESTION = "How much hangs on a rule's scaling, and what would a choice without labels have taken?"
FIGURES: tuple[str, ...] = ("sensitivity",)
FILES: tuple[str, ...] = ("sensitivity.csv",)


@dataclass(frozen=True)
class _Rule:
    """What a rule reached over its scalings."""

    label: str
    accuracy: Mapping[str, Summary]
    """By scaling, as the suite writes it."""
    entropy: Mapping[str, float]
    """Mean over tasks and seeds, in nats."""

    @property
    def best(self) -> str:
        """The scaling with the highest average accuracy, the first of equals."""
        return max(self.accuracy, key=lambda scaling: self.accuracy[scaling].mean[AVERAGE])

    @property
    def chosen(self) -> str:
        """The scaling with the lowest entropy, for which no label is read."""
        return min(self.entropy, key=lambda scaling: self.entropy[scaling])


def reads(suite: "Suite") -> list[Path]:
    """List what rules and adaptations reached, for every seed; nothing without the experiment."""
    if "sensitivity" not in suite.studied:
        return []
    return [*_of_rules(suite), *_of_adaptations(suite)]


def _of_rules(suite: "Suite") -> list[Path]:
    return [
        paths.experiment(suite.name, "sensitivity", name, seed)
        for name in suite.studied["sensitivity"].merging
        for seed in suite.seeds
    ]


def _of_adaptations(suite: "Suite") -> list[Path]:
    return [
        paths.experiment(suite.name, "adapted", name, seed)
        for name, method in suite.merging.items()
        if method.adapts
        for seed in suite.seeds
    ]


def show(suite: "Suite", root: Path) -> Content:
    """Draw accuracy over the scaling; say what is best, what entropy takes, what adapting adds."""
    rules, adapted = _rules(suite, root), _adapted(suite, root)
    looks_of = looks(suite.merging)
    images = cast("Sensitivity", suite.studied["sensitivity"]).images
    where = f"Measured on the first {images} test images of each task. {seeds_of(suite)}"
    return Content(
        tables=[_chosen_table(suite, rules, adapted, where), _all_scalings(rules)],
        figures=[
            charted(
                name=FIGURES[0],
                title="Accuracy over the scaling",
                text="The narrower a rule's peak, the more hangs on a scaling that suits these "
                "models. The circle is a rule's best scaling, which takes labels to find; the "
                "square is the one of lowest entropy, which takes none. Dashed lines are the "
                "suite's adaptations, which learn coefficients without labels: look at how far "
                f"above the peaks they lie. {where}",
                alt="A line chart of average accuracy over the scaling, a line a rule, with the "
                "suite's adaptations as horizontal lines; the tables below have the numbers.",
                panels={"": _chart(suite, rules, adapted)},
            )
        ],
        findings=_findings(rules, {looks_of[n].label: s for n, s in adapted.items()}),
        files={FILES[0]: experiment_csv(root / path for path in reads(suite))},
        made_by=commands(suite, "sensitivity", FILES[0]),
    )


def _rules(suite: "Suite", root: Path) -> dict[str, _Rule]:
    files = [root / path for path in _of_rules(suite)]
    accuracy = measurements.in_experiment(files, suite.tasks, ACCURACY)
    entropy = measurements.in_experiment(files, suite.tasks, ENTROPY)
    shown_as = looks(suite.studied["sensitivity"].merging)
    return {
        name: _Rule(
            shown_as[name].label,
            {s: Summary.of(values) for (s, method), values in accuracy.items() if method == name},
            {
                s: Summary.of(values).mean[AVERAGE]
                for (s, method), values in entropy.items()
                if method == name
            },
        )
        for name in suite.studied["sensitivity"].merging
    }


def _adapted(suite: "Suite", root: Path) -> dict[str, Summary]:
    files = [root / path for path in _of_adaptations(suite)]
    found = measurements.in_experiment(files, suite.tasks, ACCURACY)
    return {method: Summary.of(values) for (_, method), values in found.items()}


def _chart(suite: "Suite", rules: Mapping[str, _Rule], adapted: Mapping[str, Summary]) -> LineChart:
    of_rules, of_suite = looks(suite.studied["sensitivity"].merging), looks(suite.merging)

    def points(which: Literal["best", "chosen"]) -> list[tuple[float, float]]:
        scalings = [(rule, getattr(rule, which)) for rule in rules.values()]
        return [(float(s), rule.accuracy[s].mean[AVERAGE]) for rule, s in scalings]

    return LineChart(
        x_title="scaling",
        y_title="average top-1 accuracy (%)",
        series=[
            Series(
                rule.label,
                [float(scaling) for scaling in rule.accuracy],
                *heights(rule.accuracy.values()),
                colour=of_rules[name].colour,
            )
            for name, rule in rules.items()
        ],
        levels=[
            Level(of_suite[name].label, summary.mean[AVERAGE], of_suite[name].colour)
            for name, summary in adapted.items()
        ],
        marks=[
            Mark("best scaling, by labels", "circle", points("best")),
            Mark("lowest entropy, no labels", "square", points("chosen")),
        ],
    )


def _chosen_table(
    suite: "Suite", rules: Mapping[str, _Rule], adapted: Mapping[str, Summary], where: str
) -> Table:
    of_rules, of_suite = looks(suite.studied["sensitivity"].merging), looks(suite.merging)
    rows: dict[tuple[str, str], tuple[Summary, str | None]] = {}
    for name, rule in rules.items():
        colour = of_rules[name].colour
        rows[rule.label, f"{rule.best}, best by accuracy"] = rule.accuracy[rule.best], colour
        chosen = rule.accuracy[rule.chosen]
        rows[rule.label, f"{rule.chosen}, lowest entropy"] = chosen, colour
    for name, summary in adapted.items():
        rows[of_suite[name].label, "learned"] = summary, of_suite[name].colour
    summaries = {" ".join(key): summary for key, (summary, _) in rows.items()}
    best = best_by_column(summaries, frozenset())
    return Table(
        name="chosen_scalings",
        title="The best scaling, entropy's, and what is learned",
        text="Two rows a rule: with the scaling that labels of the test images would choose, and "
        f"with the one that entropy chooses without them; then the suite's adaptations. {where}",
        headings=("method", "scaling"),
        columns=(*suite.tasks, AVERAGE),
        lines=[
            Line(
                key,
                cells(
                    summary,
                    summaries.values(),
                    {column for column, names in best.items() if " ".join(key) in names},
                ),
                colour=colour,
            )
            for key, (summary, colour) in rows.items()
        ],
        legend="Top-1 accuracy in percent. Bold is the best of a column.",
        emphasised_last=True,
    )


def _all_scalings(rules: Mapping[str, _Rule]) -> Table:
    scalings = sorted({s for rule in rules.values() for s in rule.accuracy}, key=float)
    means = [s.mean[AVERAGE] for rule in rules.values() for s in rule.accuracy.values()]
    return Table(
        name="all_scalings",
        title="Every scaling",
        text="Averages over the tasks. Where the lowest entropy stands under the highest accuracy "
        "(both are bold), a choice without labels costs nothing. On the images and seeds above. A "
        "rule has no number at a scaling that is tried of others alone.",
        headings=("method", "measure"),
        columns=tuple(scalings),
        lines=[line for rule in rules.values() for line in _lines(rule, scalings, means)],
    )


def _lines(rule: _Rule, scalings: Sequence[str], beside: list[float]) -> list[Line]:
    """A rule's accuracies, shaded among those `beside`, and under them its entropies."""
    accuracies = {
        scaling: Cell(
            f"{shown(found):.1f}",
            f"{found.deviation[AVERAGE]:.1f}" if found.deviation else None,
            best=scaling == rule.best,
            shade=shade(found.mean[AVERAGE], beside),
        )
        for scaling, found in rule.accuracy.items()
    }
    entropies = {
        scaling: Cell(f"{value:.2f}", best=scaling == rule.chosen)
        for scaling, value in rule.entropy.items()
    }
    none = Cell("")
    return [
        Line((rule.label, "accuracy (%)"), [accuracies.get(s, none) for s in scalings]),
        Line((rule.label, "entropy (nats)"), [entropies.get(s, none) for s in scalings], last=True),
    ]


def _findings(rules: Mapping[str, _Rule], adapted: Mapping[str, Summary]) -> list[str]:
    """Hold entropy's choice against the best scaling, and each adaptation against the best rule."""
    best = max(rules.values(), key=lambda rule: rule.accuracy[rule.best].mean[AVERAGE])
    against, name = best.accuracy[best.best], f"{best.label} at its best scaling"
    return [
        *map(_of_a_rule, rules.values()),
        *(
            f"{label} reaches {percent(s)}, {lead(s, against, name)}."
            for label, s in adapted.items()
        ),
    ]


def _of_a_rule(rule: _Rule) -> str:
    best, chosen = rule.accuracy[rule.best], rule.accuracy[rule.chosen]
    text = f"{rule.label} is best at a scaling of {rule.best}, with {percent(best)}"
    if rule.chosen == rule.best:
        return f"{text}; the lowest entropy, for which no label is read, takes the same."
    return (
        f"{text}; the lowest entropy, for which no label is read, takes {rule.chosen}: "
        f"{percent(chosen)}, {lead(chosen, best, f'the scaling {rule.best}')}."
    )
