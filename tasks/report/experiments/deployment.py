"""Adaptations under what a deployment meets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from tasks.graph import paths
from tasks.report import measurements
from tasks.report.catalogue import looks
from tasks.report.charts import BarChart, Bars
from tasks.report.content import Cell, Content, Line, Table, shade
from tasks.report.experiments.wording import charted, commands, heights, seeds_of
from tasks.report.results import experiment_csv
from tasks.report.rows import AVERAGE
from tasks.report.summaries import Summary, apart, cells, difference, percent, shown, spread
from tasks.shared.long_tables import ACCURACY

if TYPE_CHECKING:
    from tasks.suite.experiments.deployment import Deployment
    from tasks.suite.schema import Suite

TITLE = "Deployment"
QUESTION = "What do adaptations lose under the conditions that a deployment meets?"
FIGURES: tuple[str, ...] = ("deployment",)
FILES: tuple[str, ...] = ("deployment.csv",)

_NAMED = 3  # costliest conditions in a finding; its table has them all


@dataclass(frozen=True)
class _Method:
    """What a method reached, by condition, the undisturbed first."""

    name: str
    label: str
    reached: Mapping[str, Summary]
    changes: Mapping[str, Summary]
    """From the undisturbed, seed by seed."""

    @property
    def start(self) -> str:
        """The undisturbed."""
        return next(iter(self.reached))

    @property
    def by_loss(self) -> list[str]:
        """The conditions, the costliest first."""
        _, *conditions = self.changes
        return sorted(conditions, key=lambda name: self.changes[name].mean[AVERAGE])

    def change(self, condition: str) -> float:
        """The change of the average, as tables show it."""
        return shown(self.changes[condition])

    def worst(self, condition: str) -> str:
        """The task that lost the most, and how much: `mnist -12.3`."""
        changes = self.changes[condition]
        tasks = [task for task in changes.mean if task != AVERAGE]
        worst = min(tasks, key=lambda task: changes.mean[task])
        return f"{worst} {shown(changes, worst):+.1f}"

    def unsure(self, condition: str) -> bool:
        """Whether the change is not larger than its spread over seeds."""
        deviation = self.changes[condition].deviation
        return deviation is not None and abs(self.change(condition)) <= deviation[AVERAGE]


def reads(suite: "Suite") -> list[Path]:
    """List what was measured under each condition, for every seed; nothing if not asked for."""
    if "deployment" not in suite.studied:
        return []
    return [
        paths.experiment(suite.name, "deployment", condition, seed)
        for condition in _settings(suite).names
        for seed in suite.seeds
    ]


def _settings(suite: "Suite") -> "Deployment":
    return cast("Deployment", suite.studied["deployment"])


def show(suite: "Suite", root: Path) -> Content:
    """Make a table an adaptation of what each condition costs, the costliest first."""
    settings, files = _settings(suite), [root / path for path in reads(suite)]
    adapted, rules = _methods(suite, files)
    where = (
        f"Adapted on the first {settings.images} images at most of each task that the held-out "
        "protocol adapts on, without their labels, as the condition disturbs them; measured on the "
        f"held-out part, which stays clean and which no adaptation sees. {seeds_of(suite)}"
    )
    harm = f"; one below {rules[0].label}'s, that adapting did harm" if rules else ""
    texts = {name: each.text for name, each in settings.disturbed.items()}
    return Content(
        tables=[
            *(_costs(method, rules, texts, where) for method in adapted),
            _by_task(suite, [*adapted, *rules]),
        ],
        figures=[
            charted(
                name=FIGURES[0],
                title="Accuracy under each condition",
                text="A group of bars a condition, the undisturbed first. A bar much below the "
                f"undisturbed one's says that the adaptation does not bear the condition{harm}. "
                f"{where}",
                alt="A bar chart of average accuracy, a group a condition and a bar a method; the "
                "tables below have the numbers.",
                panels={"": _chart(settings, adapted, rules)},
            )
        ],
        findings=[line for method in adapted for line in _findings(method, rules)],
        files={FILES[0]: experiment_csv(files)},
        made_by=commands(suite, "deployment", FILES[0]),
    )


def _methods(suite: "Suite", files: Sequence[Path]) -> tuple[list[_Method], list[_Method]]:
    """Summarise adaptations, and rules. A rule is measured anew where what is merged is another."""
    settings = _settings(suite)
    measured = measurements.in_experiment(files, suite.tasks, ACCURACY)
    shown_as = looks(settings.merging)
    adapted: list[_Method] = []
    rules: list[_Method] = []
    for name, method in settings.merging.items():
        plain = measured[settings.names[0], name]
        seeds = {each: measured.get((each, name), plain) for each in settings.names}
        made = _Method(
            name,
            shown_as[name].label,
            {each: Summary.of(values) for each, values in seeds.items()},
            {each: _changes(values, plain) for each, values in seeds.items()},
        )
        (adapted if method.adapts else rules).append(made)
    return adapted, rules


def _changes(seeds: Sequence[Mapping[str, float]], plain: Sequence[Mapping[str, float]]) -> Summary:
    return Summary.of(
        [
            {task: each[task] - before[task] for task in before}
            for each, before in zip(seeds, plain, strict=True)
        ]
    )


def _chart(
    settings: "Deployment", adapted: Sequence[_Method], rules: Sequence[_Method]
) -> BarChart:
    return BarChart(
        y_title="average top-1 accuracy (%)",
        groups=[_words(name) for name in settings.names],
        bars=[Bars(each.label, *heights(each.reached.values())) for each in (*rules, *adapted)],
    )


def _costs(
    method: _Method, rules: Sequence[_Method], texts: Mapping[str, str], where: str
) -> Table:
    beside = [summary.mean[AVERAGE] for summary in method.reached.values()]
    return Table(
        name=f"costs_{method.name}",
        title=f"What each condition costs: {method.label}",
        text="The costliest first. Change is from the undisturbed, the worst task the one that "
        f"loses the most; against a rule is against the same rule of the same models. {where}",
        headings=("condition", "what is other"),
        columns=("average", "change", "worst task", *(f"against {each.label}" for each in rules)),
        lines=[
            Line(
                (_words(name), texts.get(name, "nothing")),
                [
                    Cell(
                        f"{shown(method.reached[name]):.1f}",
                        spread(method.reached[name]),
                        shade=shade(method.reached[name].mean[AVERAGE], beside),
                    ),
                    Cell(f"{method.change(name):+.1f}", spread(method.changes[name])),
                    Cell("" if name == method.start else method.worst(name)),
                    *(Cell(f"{_against(method, rule, name):+.1f}") for rule in rules),
                ],
                reference=name == method.start,
                last=name == method.start,
            )
            for name in (method.start, *method.by_loss)
        ],
        legend="Average top-1 accuracy in percent, changes and differences in points.",
    )


def _against(method: _Method, rule: _Method, condition: str) -> float:
    return difference(method.reached[condition], rule.reached[condition])


def _by_task(suite: "Suite", methods: Sequence[_Method]) -> Table:
    names = list(methods[0].reached)
    beside = [each.reached[name] for each in methods for name in names]
    return Table(
        name="deployment_tasks",
        title="Task by task",
        text="Of a rule the rows of conditions that change no model are those of the undisturbed. "
        "On the images and seeds above.",
        headings=("condition", "method"),
        columns=(*suite.tasks, AVERAGE),
        lines=[
            Line(
                (_words(name), each.label),
                cells(each.reached[name], beside),
                last=each is methods[-1],
            )
            for name in names
            for each in methods
        ],
        legend="Top-1 accuracy in percent.",
        emphasised_last=True,
    )


def _words(condition: str) -> str:
    return condition.replace("_", " ")


def _findings(method: _Method, rules: Sequence[_Method]) -> list[str]:
    """Say what each condition costs, the costliest first, and where a rule is as good."""
    start = method.reached[method.start]
    sure = [name for name in method.by_loss if not method.unsure(name)]
    unsure = [name for name in method.by_loss if method.unsure(name)]
    count = _NAMED if len(sure) > _NAMED + 1 else len(sure)
    named, others = sure[:count], sure[count:]
    said = [f"{_words(n)} {method.change(n):+.1f} ({method.worst(n)})" for n in named]
    if others:
        first, last = method.change(others[0]), method.change(others[-1])
        said.append(f"the other {len(others)} from {first:+.1f} to {last:+.1f}")
    parts = [f"changes in points: {', '.join(said)}"] if said else []
    if unsure:
        listed = ", ".join(f"{_words(n)} {method.change(n):+.1f}" for n in unsure)
        parts.append(f"not shown, as the spread over seeds is as large: {listed}")
    found = [f"{method.label} reaches {percent(start)} undisturbed; {'; '.join(parts)}."]
    return found + [_held_against(method, rule) for rule in rules]


def _held_against(method: _Method, rule: _Method) -> str:
    _, *conditions = method.reached
    below = [name for name in conditions if _against(method, rule, name) <= 0]
    lead = apart(method.reached[method.start], rule.reached[rule.start], rule.label)
    text = f"Undisturbed {method.label} is {lead}"
    if not below:
        return f"{text}, and it stays above under each of the {len(conditions)} conditions."
    named = ", ".join(f"{_words(name)} {_against(method, rule, name):+.1f}" for name in below)
    return (
        f"{text}; it stays above under {len(conditions) - len(below)} of {len(conditions)} "
        f"conditions, and not under (in points): {named}."
    )
