"""The main table: every method on every task, under both protocols."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.graph import paths
from tasks.graph.paths import PROTOCOLS
from tasks.report import differences, measurements
from tasks.report.catalogue import Look, is_task_arithmetic, looks, published, published_label
from tasks.report.content import Cell, Content, Line, Table
from tasks.report.differences import DIFFERENCES_CSV, Pair, Tested, tested_lead
from tasks.report.results import METHODS_JSON, RESULTS_CSV, results_csv
from tasks.report.rows import AVERAGE
from tasks.report.summaries import (
    Summary,
    best_by_column,
    cells,
    normalised,
    percent,
    shown,
    spread,
    summarise,
    tasks_below,
)
from tasks.suite.fields import REFERENCES

if TYPE_CHECKING:
    from tasks.suite.schema import Suite

TITLE = "Results"
QUESTION = "How well does one merged model do the work of all the individual ones?"
FIGURES: tuple[str, ...] = ()
FILES: tuple[str, ...] = (RESULTS_CSV, METHODS_JSON, DIFFERENCES_CSV)

_TITLES = {
    "transductive": "Paper's protocol (transductive)",
    "held_out": "Held-out protocol",
}
_TEXTS = {
    "transductive": "AdaMerging learns its merging coefficients on the test images without their "
    "labels, and is measured on the same images. This is what the paper reports.",
    "held_out": "AdaMerging learns on one part of the test images and is measured on the other, "
    "which it has not seen; all other methods are measured on that other part too. Where a number "
    "is as far above task arithmetic as in the table before, what AdaMerging learned holds for new "
    "images too.",
}

_OTHERS = (
    "The averages that the AdaMerging paper (arXiv 2310.02575) reports for {model} over SUN397, "
    "Cars, RESISC45, EuroSAT, SVHN, GTSRB, MNIST and DTD. Where tasks or network are others here, "
    "the order of the methods can be compared, the numbers cannot."
)
_SAME = (
    "Averages published of the line of checkpoints {line} ({model}, {tasks} tasks): {sources}. "
    "Figures of other lines are not comparable and do not stand here."
)

_ONE_SEED = "All from one seed: how much the numbers vary over seeds is not known."


def reads(suite: "Suite") -> list[Path]:
    """List the evaluations of the references and of every method, image by image too."""
    evaluations = _evaluations(suite, Path())
    return [*evaluations.values(), *(paths.hits(suite.name, *key) for key in evaluations)]


def show(suite: "Suite", root: Path) -> Content:
    """Make the main tables, the comparison with the paper, and what they say."""
    shown_as = _looks(suite)
    rows = measurements.evaluations(_evaluations(suite, root), suite.tasks)
    tables = {protocol: summarise(rows, protocol) for protocol in PROTOCOLS}
    baseline = next((n for n, m in suite.merging.items() if is_task_arithmetic(m)), None)
    around_best = _around_best(tables[PROTOCOLS[0]], shown_as, baseline)
    adapted = differences.pairs_of_adaptations(suite, shown_as)
    pairs = list(dict.fromkeys([*around_best, *adapted]))
    tested = differences.tested_pairs(suite, root, pairs)
    facts = {
        name: {k: v for k, v in asdict(look).items() if k in ("label", "data", "reference")}
        for name, look in shown_as.items()
    }
    return Content(
        tables=[
            *(
                _table(suite, protocol, tables[protocol], normalised(rows, protocol), shown_as)
                for protocol in PROTOCOLS
            ),
            differences.table(suite, tables, shown_as, tested),
            *_published(suite, tables[PROTOCOLS[0]], shown_as),
        ],
        findings=[
            *_findings(
                tables,
                shown_as,
                around_best,
                tested,
                "the pretrained encoder" if suite.model.is_classifier else "the zero-shot model",
            ),
            *differences.findings(
                tables[PROTOCOLS[0]], shown_as, adapted, around_best, tested, PROTOCOLS[0]
            ),
            *([_ONE_SEED] if len(suite.seeds) == 1 else []),
        ],
        files={
            RESULTS_CSV: results_csv(rows, suite.tasks),
            METHODS_JSON: json.dumps(facts, indent=1) + "\n",
            DIFFERENCES_CSV: differences.differences_csv(tested),
        },
    )


def headline(suite: "Suite", root: Path) -> list[tuple[str, str, bool]]:
    """Give the numbers to hold against each other: number, what it is, whether it is the best."""
    shown_as = _looks(suite)
    rows = measurements.evaluations(_evaluations(suite, root), suite.tasks)
    summaries = summarise(rows, PROTOCOLS[0])
    best = _best(summaries, shown_as)
    baseline = next((n for n, m in suite.merging.items() if is_task_arithmetic(m)), None)
    start = "the tasks' heads" if suite.model.is_classifier else "zero-shot"
    found = [(percent(summaries["pretrained"]), f"{start}, before any fine-tuning", False)]
    if baseline not in (None, best):
        found.append((percent(summaries[baseline]), "task arithmetic, one fixed scaling", False))
    return [
        *found,
        (percent(summaries[best]), f"{shown_as[best].label}, the best merged model", True),
        (
            percent(summaries["individual"]),
            "individual models, one a task: the upper reference",
            False,
        ),
    ]


def _looks(suite: "Suite") -> dict[str, Look]:
    rows = (*suite.references, *suite.merging)
    return {
        name: look
        for name, look in looks(suite.merging, suite.model.is_classifier).items()
        if name in rows
    }


def _evaluations(suite: "Suite", root: Path) -> dict[tuple[str, int], Path]:
    return {
        (method, seed): root / paths.evaluation(suite.name, method, seed)
        for method in (*suite.references, *suite.merging)
        for seed in suite.seeds
    }


def _table(
    suite: "Suite",
    protocol: str,
    summaries: Mapping[str, Summary],
    shares: Mapping[str, Summary],
    shown_as: Mapping[str, Look],
) -> Table:
    best = best_by_column(summaries, _references(shown_as))
    text = _TEXTS[protocol]
    if protocol == "held_out":
        text += f" Measured part: {100 * suite.evaluate.held_out_fraction:g} % of the test images."
    return Table(
        name=protocol,
        title=_TITLES[protocol],
        text=text,
        headings=("method", "data used"),
        columns=(*suite.tasks, "normalised", AVERAGE),
        lines=[
            Line(
                names=(shown_as[method].label, shown_as[method].data),
                cells=_with_share(
                    cells(
                        summary,
                        summaries.values(),
                        {column for column, methods in best.items() if method in methods},
                    ),
                    shares[method],
                ),
                colour=shown_as[method].colour,
                reference=shown_as[method].reference,
                last=method == suite.references[-1],
            )
            for method, summary in summaries.items()
        ],
        legend=_legend(suite, shown_as) if protocol == PROTOCOLS[0] else "",
        on_index=True,
        emphasised_last=True,
    )


def _with_share(found: list[Cell], reached: Summary) -> list[Cell]:
    """Put the normalised accuracy before the average, which is the last."""
    *tasks, average = found
    return [*tasks, Cell(f"{shown(reached):.1f}", spread(reached)), average]


def _legend(suite: "Suite", shown_as: Mapping[str, Look]) -> str:
    seeds = ", ".join(map(str, suite.seeds))
    over = f": mean ± sample standard deviation over the seeds {seeds}"
    supervised = [n for n, look in shown_as.items() if look.reference and n not in REFERENCES]
    below = "; those below it learned from the true labels of the test images" if supervised else ""
    return (
        f"Top-1 accuracy in percent{over if len(suite.seeds) > 1 else f', seed {seeds}'}. Rows "
        f"in italics are references: those above the line are no merged models{below}. Bold is the "
        "best merged model of a column; the stronger a cell's tint, the higher it stands between "
        "the lowest and the highest of its column. Data used is what a method took beside the "
        "fine-tuned models: validation images where it chose a parameter, test images where it "
        "learned coefficients. Normalised is the share of the individual models' accuracy, in "
        "percent, the mean of the tasks' shares. Colours before the names are those of the figures."
    )


def _published(
    suite: "Suite", summaries: Mapping[str, Summary], shown_as: Mapping[str, Look]
) -> list[Table]:
    """Set the suite's averages beside those published of its line of checkpoints, if there are."""
    if suite.model.is_classifier:  # nothing is published of these
        return []
    line = suite.checkpoints.line if suite.checkpoints else None
    figures = published(line, suite.model.architecture, len(suite.tasks))
    if not figures.averages:
        return []
    above = [name for name in figures.averages if name in REFERENCES]
    here = {look.paper: summaries[name] for name, look in reversed(list(shown_as.items()))}
    table = Table(
        name="paper",
        title="Beside the paper" if line is None else f"Beside what was published of {line}",
        text=_OTHERS.format(model=figures.model)
        if line is None
        else _SAME.format(
            line=line, model=figures.model, tasks=figures.tasks, sources="; ".join(figures.sources)
        ),
        headings=("method",),
        columns=("average in the paper" if line is None else "published average", "average here"),
        lines=[
            Line(
                (published_label(name),),
                [
                    Cell(f"{average:.1f}"),
                    Cell(f"{shown(here[name]):.1f}" if name in here else "not run"),
                ],
                reference=name in above,
                last=name in above[-1:],
            )
            for name, average in figures.averages.items()
        ],
    )
    return [table]


def _around_best(
    summaries: Mapping[str, Summary], shown_as: Mapping[str, Look], baseline: str | None
) -> list[Pair]:
    """Pair the best merged model with what it is held against: the baseline or the pretrained
    model, the next, the individual models.
    """
    best = _best(summaries, shown_as)
    others = {name: summary for name, summary in summaries.items() if name != best}
    alone = all(shown_as[name].reference for name in others)
    second = [] if alone else [_best(others, shown_as)]
    against = baseline if baseline not in (None, best) else "pretrained"
    return [(best, other) for other in (against, *second, "individual")]


def _findings(
    tables: Mapping[str, Mapping[str, Summary]],
    shown_as: Mapping[str, Look],
    around_best: Sequence[Pair],
    tested: Tested,
    start: str,
) -> list[str]:
    first, held_out = (tables[protocol] for protocol in PROTOCOLS)
    best, against = around_best[0]
    names = {other: shown_as[other].label for _, other in around_best}
    names |= {"pretrained": start, "individual": "the individual models"}

    def lead(other: str, protocol: str = PROTOCOLS[0]) -> str:
        summaries, found = tables[protocol], tested[protocol, (best, other)]
        return tested_lead(summaries[best], summaries[other], names[other], found)

    return [
        f"{shown_as[best].label} is the best merged model: {percent(first[best])} on average, "
        f"{lead(against)}.",
        *(f"It is {lead(second)}, the next." for _, second in around_best[1:-1]),
        f"It is {lead('individual')}, which need one network a task.",
        f"Under the held-out protocol it reaches {percent(held_out[best])}, "
        f"{lead(against, PROTOCOLS[1])}.",
        *_below_start(
            first,
            [name for name in dict.fromkeys((against, best)) if name != "pretrained"],
            shown_as,
            start,
        ),
    ]


def _below_start(
    summaries: Mapping[str, Summary],
    methods: Sequence[str],
    shown_as: Mapping[str, Look],
    start: str,
) -> list[str]:
    """Say on which tasks merging loses what the pretrained model could do already."""
    found = []
    for method in dict.fromkeys(methods):
        worse = tasks_below(summaries[method], summaries["pretrained"])
        where = f"on {worse}" if worse else "on no task"
        found.append(f"{shown_as[method].label} is below {start} {where}.")
    return found


def _best(summaries: Mapping[str, Summary], shown_as: Mapping[str, Look]) -> str:
    merged = [name for name in summaries if not shown_as[name].reference]
    return max(merged, key=lambda name: summaries[name].mean[AVERAGE])


def _references(shown_as: Mapping[str, Look]) -> frozenset[str]:
    return frozenset(name for name, look in shown_as.items() if look.reference)
