"""The main table: every method on every task, under both protocols."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.graph import paths
from tasks.graph.paths import PROTOCOLS
from tasks.report import measurements
from tasks.report.catalogue import Look, is_task_arithmetic, looks, published, published_label
from tasks.report.content import Cell, Content, Line, Table
from tasks.report.results import METHODS_JSON, RESULTS_CSV, results_csv
from tasks.report.rows import AVERAGE
from tasks.report.summaries import (
    Summary,
    best_by_column,
    cells,
    lead,
    percent,
    shown,
    summarise,
    tasks_below,
)
from tasks.suite.fields import REFERENCES

if TYPE_CHECKING:
    from tasks.suite.schema import Suite

TITLE = "Results"
QUESTION = "How well does one merged model do the work of all the individual ones?"
FIGURES: tuple[str, ...] = ()
FILES: tuple[str, ...] = (RESULTS_CSV, METHODS_JSON)

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
    """List the evaluations of the references and of every method."""
    return list(_evaluations(suite, Path()).values())


def show(suite: "Suite", root: Path) -> Content:
    """Make the main tables, the comparison with the paper, and what they say."""
    shown_as = _looks(suite)
    rows = measurements.evaluations(_evaluations(suite, root), suite.tasks)
    tables = {protocol: summarise(rows, protocol) for protocol in PROTOCOLS}
    baseline = next((n for n, m in suite.merging.items() if is_task_arithmetic(m)), None)
    facts = {
        name: {k: v for k, v in asdict(look).items() if k in ("label", "data", "reference")}
        for name, look in shown_as.items()
    }
    return Content(
        tables=[
            *(_table(suite, protocol, tables[protocol], shown_as) for protocol in PROTOCOLS),
            *_published(suite, tables[PROTOCOLS[0]], shown_as),
        ],
        findings=_findings(
            tables,
            shown_as,
            baseline,
            "the pretrained encoder" if suite.model.is_classifier else "the zero-shot model",
        ),
        files={
            RESULTS_CSV: results_csv(rows, suite.tasks),
            METHODS_JSON: json.dumps(facts, indent=1) + "\n",
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
    suite: "Suite", protocol: str, summaries: Mapping[str, Summary], shown_as: Mapping[str, Look]
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
        columns=(*suite.tasks, AVERAGE),
        lines=[
            Line(
                names=(shown_as[method].label, shown_as[method].data),
                cells=cells(
                    summary,
                    summaries.values(),
                    {column for column, methods in best.items() if method in methods},
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


def _legend(suite: "Suite", shown_as: Mapping[str, Look]) -> str:
    seeds = ", ".join(map(str, suite.seeds))
    spread = f": mean ± sample standard deviation over the seeds {seeds}"
    supervised = [n for n, look in shown_as.items() if look.reference and n not in REFERENCES]
    below = "; those below it learned from the true labels of the test images" if supervised else ""
    return (
        f"Top-1 accuracy in percent{spread if len(suite.seeds) > 1 else f', seed {seeds}'}. Rows "
        f"in italics are references: those above the line are no merged models{below}. Bold is the "
        "best merged model of a column; the stronger a cell's tint, the higher it stands between "
        "the lowest and the highest of its column. Data used is what a method took beside the "
        "fine-tuned models: validation images where it chose a parameter, test images where it "
        "learned coefficients. Colours before the names are those of the figures."
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


def _findings(
    tables: Mapping[str, Mapping[str, Summary]],
    shown_as: Mapping[str, Look],
    baseline: str | None,
    start: str,
) -> list[str]:
    first, held_out = (tables[protocol] for protocol in PROTOCOLS)
    best = _best(first, shown_as)
    label, summary = shown_as[best].label, first[best]
    against = baseline if baseline not in (None, best) else "pretrained"
    name = shown_as[against].label if against == baseline else start
    return [
        f"{label} is the best merged model: {percent(summary)} on average, "
        f"{lead(summary, first[against], name)}.",
        *_next(first, best, shown_as),
        f"It is {lead(summary, first['individual'], 'the individual models')}, which need one "
        "network a task.",
        f"Under the held-out protocol it reaches {percent(held_out[best])}, "
        f"{lead(held_out[best], held_out[against], name)}.",
        *_below_start(first, [n for n in (baseline, best) if n], shown_as, start),
        *([_ONE_SEED] if summary.deviation is None else []),
    ]


def _next(summaries: Mapping[str, Summary], best: str, shown_as: Mapping[str, Look]) -> list[str]:
    """Say how far the best is from the one after it, if there is one."""
    others = {name: summary for name, summary in summaries.items() if name != best}
    if all(shown_as[name].reference for name in others):
        return []
    second = _best(others, shown_as)
    return [f"It is {lead(summaries[best], others[second], shown_as[second].label)}, the next."]


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
