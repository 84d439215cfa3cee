"""The differences between methods that the page of results claims, each tested on paired images."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from adamerge_core.errors import InputError
from tasks.graph import paths
from tasks.graph.paths import PROTOCOLS
from tasks.report.catalogue import Look
from tasks.report.content import Cell, Line, Table
from tasks.report.paired import RESAMPLES, Difference, paired_difference
from tasks.report.summaries import Summary, apart, difference
from tasks.shared.hits import read_hits

if TYPE_CHECKING:
    from tasks.suite.schema import Suite

DIFFERENCES_CSV = "differences.csv"

BASELINES = ("weight_averaging", "task_arithmetic", "ties_merging")
"""Of the paper's table, against which every adaptation is held."""

Pair = tuple[str, str]
Tested = Mapping[tuple[str, Pair], Difference]
"""By protocol and pair of methods."""


def pairs_of_adaptations(suite: "Suite", shown_as: Mapping[str, Look]) -> list[Pair]:
    """List every adaptation beside the paper's baselines; then each ++ beside the plain one."""
    named = {look.paper: name for name, look in reversed(list(shown_as.items())) if look.paper}
    adapted = [n for n, m in suite.merging.items() if m.adapts and not shown_as[n].reference]
    baselines = [named[paper] for paper in BASELINES if paper in named]
    against = [(name, other) for name in adapted for other in baselines]
    papers = [(name, shown_as[name].paper or "") for name in adapted]
    plain = [(name, named.get(paper.removesuffix("_pp"))) for name, paper in papers]
    return against + [(name, other) for name, other in plain if other not in (None, name)]


def tested_pairs(suite: "Suite", root: Path, pairs: Sequence[Pair]) -> Tested:
    """Test the differences of pairs of methods under both protocols.

    Every method's hits are read, as any may be the best. Raises one InputError that lists those
    that are missing, or that are of other images.
    """
    names = (*suite.references, *suite.merging)
    hits = {
        (name, seed): read_hits(root / paths.hits(suite.name, name, seed))
        for name in names
        for seed in suite.seeds
    }
    _check(suite, hits)
    measured = {
        (protocol, name): [
            np.stack([hits[name, seed][protocol, task] for seed in suite.seeds])
            for task in suite.tasks
        ]
        for protocol in PROTOCOLS
        for name in names
    }
    return {
        (protocol, (one, other)): paired_difference(
            measured[protocol, one], measured[protocol, other]
        )
        for protocol in PROTOCOLS
        for one, other in pairs
    }


def _check(
    suite: "Suite", hits: Mapping[tuple[str, int], Mapping[tuple[str, str], np.ndarray]]
) -> None:
    faults: list[str] = []
    counts: dict[tuple[str, str], int] = {}
    for (name, seed), found in hits.items():
        path = paths.hits(suite.name, name, seed)
        for key in ((protocol, task) for protocol in PROTOCOLS for task in suite.tasks):
            if key not in found:
                faults.append(f"{path}: no hits of {key[1]}, protocol {key[0]}")
            elif len(found[key]) != counts.setdefault(key, len(found[key])):
                faults.append(
                    f"{path}: {len(found[key])} images of {key[1]}, protocol {key[0]}; other "
                    f"methods have {counts[key]}"
                )
    if faults:
        faults.append("fix: make these files anew for the suite's tasks: dvc repro")
        raise InputError.listing("hits that do not fit the suite", faults)


def tested_lead(first: Summary, second: Summary, name: str, found: Difference) -> str:
    """Write how far the first is from the second, and whether that is shown."""
    verdict = ", shown" if found.shown else ", not shown"
    if difference(first, second) == 0:
        verdict = ""
    return (
        f"{apart(first, second, name)}{verdict} (95 % interval of the difference "
        f"{_interval(found)})"
    )


def _interval(found: Difference) -> str:
    """Write it; a bound that would read as 0 and is not has its first digit."""
    low, high = (
        f"{bound:.1f}" if bound == 0 or abs(bound) >= 0.05 else f"{bound:.1g}"
        for bound in (found.low, found.high)
    )
    return f"{low} to {high}"


def table(
    suite: "Suite",
    tables: Mapping[str, Mapping[str, Summary]],
    shown_as: Mapping[str, Look],
    tested: Tested,
) -> Table:
    """Show every difference that was tested, with its interval, by protocol."""
    return Table(
        name="differences",
        title="Which differences are shown",
        text=_unit(suite.seeds),
        headings=("method", "against"),
        columns=tuple(protocol.replace("_", "-") for protocol in PROTOCOLS),
        lines=[
            Line(
                (shown_as[one].label, shown_as[other].label),
                [
                    _cell(tables[protocol][one], tables[protocol][other], tested[protocol, pair])
                    for protocol in PROTOCOLS
                ],
                colour=shown_as[one].colour,
            )
            for pair in dict.fromkeys(pair for _, pair in tested)
            for one, other in [pair]
        ],
        legend="Difference of the averages over the tasks in points and, in brackets, the interval "
        "that holds 95 % of its resamples. It is shown where this interval leaves out 0.",
    )


def _unit(seeds: Sequence[int]) -> str:
    """Say what is drawn anew: the unit of the test."""
    over = (
        f"; the seeds of fine-tuning ({', '.join(map(str, seeds))}) are drawn anew with them"
        if len(seeds) > 1
        else f". There is one seed of fine-tuning, {seeds[0]}, so an interval says what other test "
        "images would change, and nothing of other seeds"
    )
    return (
        "Both methods of a row are measured on the same test images, so the unit is the image: "
        f"{RESAMPLES} times the images of each task are drawn anew with replacement, the same ones "
        f"for both methods{over}. That the best method was found on these images too is not "
        "accounted for."
    )


def _cell(first: Summary, second: Summary, found: Difference) -> Cell:
    points = difference(first, second)
    verdict = "shown" if found.shown else "not shown"
    return Cell(f"{points:+.1f} ({_interval(found)}), {verdict}")


def differences_csv(tested: Tested) -> str:
    """Write method, against, protocol, difference, low, high, shown; points, two decimals."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["method", "against", "protocol", "difference", "low", "high", "shown"])
    for (protocol, (one, other)), found in tested.items():
        numbers = (f"{value:.2f}" for value in (found.points, found.low, found.high))
        writer.writerow([one, other, protocol, *numbers, "yes" if found.shown else "no"])
    return text.getvalue()


def findings(
    summaries: Mapping[str, Summary],
    shown_as: Mapping[str, Look],
    pairs: Sequence[Pair],
    told: Sequence[Pair],
    tested: Tested,
    protocol: str,
) -> list[str]:
    """Count the adaptations' differences from the baselines; say each of ++ from the plain, but for
    those that were told of.
    """
    against = [pair for pair in pairs if shown_as[pair[1]].paper in BASELINES]
    found = [
        f"{shown_as[one].label} is "
        + tested_lead(
            summaries[one], summaries[other], shown_as[other].label, tested[protocol, (one, other)]
        )
        + "."
        for one, other in pairs
        if (one, other) not in (*against, *told)
    ]
    return [*_counted(against, tested, shown_as, protocol), *found]


def _counted(
    pairs: Sequence[Pair], tested: Tested, shown_as: Mapping[str, Look], protocol: str
) -> list[str]:
    if not pairs:
        return []
    results = {pair: tested[protocol, pair] for pair in pairs}
    above = [pair for pair, each in results.items() if each.low > 0]
    below = [pair for pair, each in results.items() if each.high < 0]
    unsure = [pair for pair, each in results.items() if not each.shown]
    others = ", ".join(dict.fromkeys(shown_as[other].label for _, other in pairs))
    return [
        f"Of {len(pairs)} differences between adaptations and {others}, {len(above)} are shown to "
        f"be above 0 and {len(below)} below{_listed(below, shown_as)}; {len(unsure)} are not "
        f"shown{_listed(unsure, shown_as)}."
    ]


def _listed(pairs: Sequence[Pair], shown_as: Mapping[str, Look]) -> str:
    named = [f"{shown_as[one].label} from {shown_as[other].label}" for one, other in pairs]
    return f" ({', '.join(named)})" if named else ""
