"""What each preset of adaptation reaches on a suite that has run, and at what cost.

    make study                          # once: three seeds of the mini suite
    python -m benchmarks.presets        # paper and fast, every seed, both protocols
    python -m benchmarks.presets --presets fast --seeds 0 --protocols transductive
    python -m benchmarks.presets --presets fast --set start=0.2 --before trim_and_elect

Run it in the project's root: it reads the task vectors, heads and test images below data/.
One line is one adaptation: its accuracy on average over the tasks, in percent, and how many images
went forward and backward (an image that went only forward, as an expert's does, counts a third).
Lines are kept in .adamerge/presets.csv as they come, with the state of the adaptation that is under
way; an interrupted benchmark goes on from there. `paper` takes a quarter of an hour on one core for
each seed and protocol.
"""

import argparse
import csv
import statistics
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from adamerge_core.adamerging import PRESETS, AdaptationSettings
from adamerge_core.adamerging.objective import OBJECTIVES
from adamerge_core.errors import InputError
from adamerge_core.merging import BEFORE
from benchmarks.suite_problem import SuiteProblem, last_step
from tasks.graph.paths import PROTOCOLS
from tasks.running.environment import WORK
from tasks.running.hashes import digest
from tasks.shared.device import set_up
from tasks.shared.tables import write_csv
from tasks.suite.methods import AdaptMethod, parse_as
from tasks.suite.schema import Suite, load_params

RESULTS = WORK / "presets.csv"
COEFFICIENTS = ("task_wise", "layer_wise")
FORWARD_SHARE = 1 / 3
"""Of the operations of forward and backward together."""


def main() -> None:
    suite = load_params()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.presets", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    known = [name for name, chosen in PRESETS.items() if chosen.granularity in COEFFICIENTS]
    parser.add_argument("--presets", nargs="+", choices=known, default=["paper", "fast"])
    parser.add_argument("--seeds", nargs="+", type=int, default=list(suite.seeds))
    parser.add_argument("--protocols", nargs="+", choices=PROTOCOLS, default=list(PROTOCOLS))
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="other settings")
    parser.add_argument("--before", choices=list(BEFORE), help="what changes the task vectors")
    arguments = parser.parse_args()
    set_up(suite.compute.model_dump())
    trials = [changed(name, arguments.set, arguments.before) for name in arguments.presets]
    rows = _read()
    for seed in arguments.seeds:
        for protocol in arguments.protocols:
            for trial in trials:
                if not any(_is(row, suite, trial, protocol, seed) for row in rows):
                    rows.append(_measure(suite, trial, protocol, seed))
                    write_csv(RESULTS, rows)
                    _state(suite, trial, protocol, seed).unlink(missing_ok=True)
    for protocol in arguments.protocols:
        for trial in trials:
            chosen = [
                row
                for row in rows
                for seed in arguments.seeds
                if _is(row, suite, trial, protocol, seed)
            ]
            _print_summary(trial, protocol, chosen)


@dataclass(frozen=True)
class Trial:
    """A preset, perhaps with some settings changed."""

    name: str
    method: AdaptMethod

    @property
    def key(self) -> str:
        """A hash of all that it is, so that a preset that has changed is measured again."""
        before = self.method.before.name if self.method.before else None
        return digest([asdict(self.method.settings), before])[:8]


def changed(preset: str, changes: list[str], before: str | None) -> Trial:
    """Change settings, each as NAME=VALUE. Raises InputError listing what is wrong with them."""
    entry: dict[str, Any] = {"adapt": PRESETS[preset].granularity, "preset": preset}
    for change in changes:
        name, _, value = change.partition("=")
        entry[name] = yaml.safe_load(value)
    if before:
        entry["before"] = before
    method = parse_as(AdaptMethod, preset, {preset: entry})
    name = " ".join([preset, *changes, *([before] if before else [])])
    return Trial(name, method)


def _measure(suite: Suite, trial: Trial, protocol: str, seed: int) -> dict[str, str]:
    """Adapt and measure, under one protocol and for one seed."""
    problem = SuiteProblem.open(suite, seed, protocol)
    adaptation = problem.prepare(trial.method)
    state = _state(suite, trial, protocol, seed)
    last = last_step(adaptation, seed, f"{trial.name} {protocol} seed {seed}", state)
    reached = problem.accuracy(adaptation.model(last.coefficients, {}))
    row = {
        "suite": suite.name,
        "preset": trial.name,
        "key": trial.key,
        "protocol": protocol,
        "seed": str(seed),
        "average": f"{reached:.2f}",
        "passes": f"{passes(trial.method.settings, problem.unlabeled):.0f}",
    }
    print(*row.values(), flush=True)
    return row


def _state(suite: Suite, trial: Trial, protocol: str, seed: int) -> Path:
    """What an interrupted adaptation goes on from; kept until its row is written."""
    return WORK / f"preset-{digest([suite.name, trial.key, protocol, seed])}.safetensors"


def passes(settings: AdaptationSettings, unlabeled: Mapping[str, np.ndarray]) -> float:
    """Images that went forward and backward."""
    experts = OBJECTIVES[settings.objective].needs == "experts"
    adapted = settings.steps * settings.images_per_task * settings.batches_per_step * len(unlabeled)
    labelled = sum(map(len, unlabeled.values())) if experts else 0
    return adapted + FORWARD_SHARE * labelled


def _print_summary(trial: Trial, protocol: str, rows: list[dict[str, str]]) -> None:
    averages = [float(row["average"]) for row in rows]
    spread = f" ± {statistics.stdev(averages):.2f}" if len(averages) > 1 else ""
    print(
        f"{trial.name:<8} {protocol:<13} {statistics.mean(averages):.2f}{spread} % over "
        f"{len(averages)} seeds, {rows[0]['passes']} passes each"
    )


def _is(row: Mapping[str, str], suite: Suite, trial: Trial, protocol: str, seed: int) -> bool:
    wanted = (suite.name, trial.key, protocol, str(seed))
    return (row["suite"], row["key"], row["protocol"], row["seed"]) == wanted


def _read(path: Path = RESULTS) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        # a file of before rows had keys keeps its rows, which no trial matches
        return [{"key": "", **row} for row in csv.DictReader(file)]


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(str(error))
