"""What each preset of adaptation reaches on a suite that has run, and at what cost.

    make study                          # once: three seeds of the mini suite
    python -m benchmarks.presets        # paper and fast, every seed, both protocols
    python -m benchmarks.presets --presets fast --seeds 0 --protocols transductive
    python -m benchmarks.presets --presets fast --set start=0.2 --preprocessing trim_and_elect

Run it in the project's root: it reads the task vectors, heads and test images below data/<suite>/.
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
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from adamerge_core.adamerging import PRESETS, AdaptationSettings, Engine, adapt
from adamerge_core.adamerging.objective import OBJECTIVES
from adamerge_core.errors import InputError
from adamerge_core.merging import PREPROCESSINGS
from benchmarks.suite_problem import SuiteProblem, with_progress
from tasks.adapt import adaptation_targets
from tasks.graph.paths import PROTOCOLS
from tasks.running.environment import WORK
from tasks.running.hashes import digest
from tasks.shared.tables import write_csv
from tasks.shared.task_vectors import set_up
from tasks.suite.schema import Suite, load_params

RESULTS = WORK / "presets.csv"
FIELDS = fields(AdaptationSettings)
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
    parser.add_argument("--preprocessing", choices=list(PREPROCESSINGS), help="of the task vectors")
    arguments = parser.parse_args()
    set_up(suite.compute)
    trials = [changed(name, arguments.set, arguments.preprocessing) for name in arguments.presets]
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
    settings: AdaptationSettings
    preprocessing: str | None

    @property
    def key(self) -> str:
        """Of all that it is, so that a preset that has changed is measured again."""
        return digest([asdict(self.settings), self.preprocessing])[:8]


def changed(preset: str, changes: list[str], preprocessing: str | None) -> Trial:
    """Raises InputError listing what is wrong with the changes."""
    types = {field.name: type(getattr(PRESETS[preset], field.name)) for field in FIELDS}
    values: dict[str, Any] = {}
    faults = []
    for change in changes:
        name, _, value = change.partition("=")
        try:
            values[name] = types[name](value)
        except KeyError:
            faults.append(f"{name}: is no setting; known are {', '.join(types)}")
        except ValueError:
            faults.append(f"{name} = {value!r}: must be of type {types[name].__name__}")
    if faults:
        raise InputError.listing("--set", faults)
    settings = replace(PRESETS[preset], **values)
    if settings.faults():
        raise InputError.listing("--set", settings.faults())
    name = " ".join([preset, *changes, *([preprocessing] if preprocessing else [])])
    return Trial(name, settings, preprocessing)


def _measure(suite: Suite, trial: Trial, protocol: str, seed: int) -> dict[str, str]:
    """Adapt and measure, under one protocol and for one seed."""
    settings = trial.settings
    problem = SuiteProblem.open(suite, seed, protocol)
    encoder, heads, unlabeled = problem.encoder, problem.heads, problem.unlabeled
    task_vectors = problem.task_vectors
    targets = adaptation_targets(settings, task_vectors, encoder, heads, problem.adapted)
    if trial.preprocessing:
        task_vectors = PREPROCESSINGS[trial.preprocessing](task_vectors)
    engine = Engine(
        encoder, task_vectors, heads, suite.compute.micro_batch, suite.compute.precision
    )
    state = _state(suite, trial, protocol, seed)
    steps = adapt(engine, unlabeled, settings, seed, state, targets=targets)
    for step in with_progress(steps, f"{trial.name} {protocol} seed {seed}", settings.steps):
        last = step.coefficients
    reached = problem.accuracy(engine, last)
    row = {
        "suite": suite.name,
        "preset": trial.name,
        "key": trial.key,
        "protocol": protocol,
        "seed": str(seed),
        "average": f"{reached:.2f}",
        "passes": f"{passes(settings, unlabeled):.0f}",
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
