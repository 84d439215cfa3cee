"""Methods under every corruption and severity, and what tells without labels where they fail."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.graph import paths
from tasks.report import measurements
from tasks.report.catalogue import looks
from tasks.report.charts import LineChart, Series
from tasks.report.content import Cell, Content, Line, Table, shade
from tasks.report.experiments.corruption_places import (
    CLEAN,
    CORRUPTED,
    SIGNS,
    Variant,
    guards_table,
    held_against,
    misled_table,
    of_guards,
    of_misled,
    of_signs,
    scatter,
    severities_of,
    signs_table,
    words,
)
from tasks.report.experiments.wording import charted, commands, heights, seeds_of
from tasks.report.results import experiment_csv
from tasks.report.rows import AVERAGE
from tasks.report.summaries import Summary, averaged, lead, percent, shown
from tasks.shared.long_tables import ACCURACY, AGREEMENT, EVENNESS

if TYPE_CHECKING:
    from tasks.suite.schema import Suite

TITLE = "Corruptions"
QUESTION = (
    "How do methods fare under every corruption, where does adapting mislead, and can that be told "
    "without labels?"
)
FIGURES: tuple[str, ...] = ("corruptions_severity", "corruptions_signs")
FILES: tuple[str, ...] = ("corruptions.csv",)


def reads(suite: "Suite") -> list[Path]:
    """List what was measured of each method under each corruption, for every seed."""
    if "corruptions" not in suite.studied:
        return []
    return [
        paths.experiment(suite.name, "corruptions", f"{name}-{corruption}", seed)
        for name in suite.studied["corruptions"].merging
        for corruption in (CLEAN, *suite.corrupt.corruptions)
        for seed in suite.seeds
    ]


def show(suite: "Suite", root: Path) -> Content:
    """Draw accuracy over the severity; list where adapting misleads, and what goes with it."""
    files = [root / path for path in reads(suite)]
    tasks = suite.corrupt.tasks
    variants = _variants(suite)
    found = {
        metric: measurements.in_experiment(files, tasks, metric) for metric in (ACCURACY, *SIGNS)
    }
    averages = _Averages(suite, found[ACCURACY])
    places = {
        each.label: held_against(suite, found, variants[0], each)
        for each in variants
        if each.adapted_on == CORRUPTED
    }
    where = (
        f"Merged are {', '.join(tasks)} alone, measured on {suite.corrupt.images} test images of "
        f"each. {seeds_of(suite)}"
    )
    return Content(
        tables=[
            _by_corruption(suite, variants, averages, where),
            _by_severity(suite, variants, averages, where),
            *misled_table(places, variants[0].label),
            *guards_table(places, variants[0].label),
            signs_table(places),
        ],
        figures=[
            charted(
                FIGURES[0],
                "Accuracy over the severity",
                "Averages over corruptions and tasks; severity 0 is the clean images. Solid lines "
                "adapt on the corrupted images, dashed ones on the clean images. Look for the "
                f"severity from which adapting no longer pays. {where}",
                "A line chart of average accuracy over the severity of the corruption, a line a "
                "method; the tables below have the numbers.",
                {"": _over_severities(suite, variants, averages)},
            ),
            charted(
                FIGURES[1],
                "What goes with being misled",
                f"A point is a task under a corruption at a severity: how far a method that adapts "
                f"there moves from {variants[0].label}, in accuracy (up) and in measures that need "
                "no label (across). A measure that tells where adapting misleads has its points "
                "along a rising line.",
                "Two scatter plots of the change in accuracy over the change in agreement with the "
                "experts and in the evenness of predicted classes; the last table has their rank "
                "correlations.",
                {
                    f"by {SIGNS[sign]}": scatter(places, sign, variants)
                    for sign in (AGREEMENT, EVENNESS)
                },
            ),
        ],
        findings=[
            *_findings(suite, variants, averages),
            *of_misled(places, variants[0].label),
            *of_guards(places, variants[0].label),
            *of_signs(places),
        ],
        files={FILES[0]: experiment_csv(files)},
        made_by=commands(suite, "corruptions", FILES[0]),
    )


def _variants(suite: "Suite") -> list[Variant]:
    """List the methods in their order, those that adapt once a kind of images."""
    merging = suite.studied["corruptions"].merging
    shown_as = looks(merging)
    found = []
    for name, method in merging.items():
        look = shown_as[name]
        if not method.adapts:
            found.append(Variant(name, CLEAN, look.label, look.colour, adapts=False))
            continue
        found += [
            Variant(name, on, f"{look.label}, adapted on {on} images", look.colour, adapts=True)
            for on in (CORRUPTED, CLEAN)
        ]
    return found


class _Averages:
    """Accuracies averaged over places, seed by seed."""

    def __init__(self, suite: "Suite", accuracy: measurements.Measured) -> None:
        self._suite, self._accuracy = suite, accuracy

    def over(
        self, variant: Variant, corruptions: Iterable[str], severities: Iterable[int]
    ) -> Summary:
        """Summarise a variant over corruptions and severities; severity 0 is the clean images."""
        settings = [
            f"{CLEAN}/0/{CLEAN}" if severity == 0 else variant.setting(corruption, severity)
            for corruption in corruptions
            for severity in severities
        ]
        return averaged(self._accuracy[each, variant.method] for each in settings)

    def overall(self, variant: Variant) -> Summary:
        """Summarise a variant over everything corrupted."""
        suite = self._suite
        return self.over(variant, suite.corrupt.corruptions, severities_of(suite))


# --- tables and charts ----------------------------------------------------------------------------


def _by_corruption(
    suite: "Suite", variants: Sequence[Variant], averages: _Averages, where: str
) -> Table:
    severities = severities_of(suite)
    rows = {
        each: [averages.over(each, [name], severities) for name in suite.corrupt.corruptions]
        + [averages.overall(each)]
        for each in variants
    }
    columns = (*(words(name) for name in suite.corrupt.corruptions), AVERAGE)
    return _table(
        "by_corruption",
        "By corruption",
        f"Averages over the severities {', '.join(map(str, severities))} and the tasks. {where}",
        columns,
        rows,
    )


def _by_severity(
    suite: "Suite", variants: Sequence[Variant], averages: _Averages, where: str
) -> Table:
    severities = (0, *severities_of(suite))
    rows = {
        each: [averages.over(each, suite.corrupt.corruptions, [s]) for s in severities]
        for each in variants
    }
    columns = ("clean", *(f"severity {each}" for each in severities[1:]))
    text = f"Averages over the corruptions and the tasks. {where}"
    return _table("by_severity", "By severity", text, columns, rows)


def _table(
    name: str,
    title: str,
    text: str,
    columns: tuple[str, ...],
    rows: Mapping[Variant, Sequence[Summary]],
) -> Table:
    every = list(zip(*([shown(s) for s in summaries] for summaries in rows.values()), strict=True))
    lines = [
        Line(
            (variant.label,),
            [
                Cell(
                    f"{shown(summary):.1f}",
                    f"{summary.deviation[AVERAGE]:.1f}" if summary.deviation else None,
                    shown(summary) == max(column),
                    shade(shown(summary), column),
                )
                for summary, column in zip(summaries, every, strict=True)
            ],
            colour=variant.colour,
        )
        for variant, summaries in rows.items()
    ]
    legend = "Top-1 accuracy in percent. Bold is the best of a column."
    return Table(
        name,
        title,
        text,
        ("method",),
        columns,
        lines,
        legend,
        emphasised_last=columns[-1] == AVERAGE,
    )


def _over_severities(suite: "Suite", variants: Sequence[Variant], averages: _Averages) -> LineChart:
    severities = (0, *severities_of(suite))
    return LineChart(
        x_title="severity of the corruption",
        y_title="average top-1 accuracy (%)",
        series=[
            Series(
                each.label,
                severities,
                *heights(averages.over(each, suite.corrupt.corruptions, [s]) for s in severities),
                colour=each.colour,
                line="dashed" if each.adapts and each.adapted_on == CLEAN else "solid",
            )
            for each in variants
        ],
    )


# --- findings -------------------------------------------------------------------------------------


def _findings(suite: "Suite", variants: Sequence[Variant], averages: _Averages) -> list[str]:
    """Hold each variant against the first over everything corrupted."""
    first, *others = variants
    base = averages.overall(first)
    count = len(suite.corrupt.corruptions)
    return [
        f"Over the {count} corruptions, {each.label} reaches {percent(averages.overall(each))}, "
        f"{lead(averages.overall(each), base, first.label)}."
        for each in others
    ]
