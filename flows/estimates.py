"""How long stages take, what to run first, and how long is left."""

import json
import os
import statistics
from collections.abc import Collection, Mapping
from pathlib import Path

from adamerge_core.atomic import atomic_write
from tasks.graph import params_yaml
from tasks.running.environment import WORK
from tasks.running.json_files import read_object

DURATIONS = WORK / "durations.json"

# seconds of the mini suite's stages on two cores: the first guess of a first run, times the pace of
# what has run here
_FIRST_GUESS = {
    "download": 9.0,
    "prepare": 3.0,
    "corrupt": 2.0,
    "pretrain": 44.0,
    "import_clip": 10.0,
    "import_classifier": 10.0,
    "heads": 5.0,
    "probe_heads": 20.0,
    "finetune": 45.0,
    "traditional_mtl": 130.0,
    "task_vectors": 1.5,
    "geometry": 6.0,
    "collect_statistics": 30.0,
    "merge": 3.0,
    "merge_task_arithmetic_best": 22.0,
    "merge_ties_merging_best": 26.0,
    "merge_wudi": 60.0,
    "adapt": 93.0,
    "evaluate": 13.0,
    "evaluate_adapted": 21.0,
    "robustness": 18.0,
    "sensitivity": 7.0,
    "sensitivity_task_arithmetic": 54.0,
    "sensitivity_ties_merging": 56.0,
    "sensitivity_dare": 57.0,
    "sensitivity_breadcrumbs": 64.0,
    "sensitivity_consensus": 57.0,
    "sensitivity_tsv_m": 95.0,
    "sensitivity_iso": 80.0,
    "unlabeled": 42.0,
    "unlabeled_regmean": 9.0,
    "unseen": 57.0,
    "unseen_pair": 32.0,
    "corruptions": 40.0,
    "surrogate": 90.0,
    "labels": 60.0,
    "cost": 7.0,
    "number_of_tasks": 49.0,
    "deployment": 55.0,
    "report": 15.0,
}
_UNKNOWN = 5.0  # of any other stage, while nothing is known of any
_LONGEST = 1e8  # seconds, three years: what is longer was not measured
_AS_GUESSED = 60.0  # seconds that count as run at the pace of the guesses: short stages say little


def workers() -> int:
    """Compute how many stages may be at work at a time: the cores by the threads of one stage."""
    threads = params_yaml.values(["compute.threads"])["compute.threads"]
    return max(1, _cores() // (threads if isinstance(threads, int) and threads > 0 else 1))


def _cores() -> int:
    """Count the CPU cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Estimates:
    """Durations in seconds of earlier runs, and what follows from them for one graph."""

    def __init__(self, upstream: Mapping[str, Collection[str]], path: Path = DURATIONS) -> None:
        self._path = path
        self._known = _load(path)
        self._pace = _pace(self._known)
        self._downstream: dict[str, list[str]] = {name: [] for name in upstream}
        for name, above in upstream.items():
            for other in above:
                self._downstream[other].append(name)
        self._order = list(upstream)

    def seconds(self, name: str) -> float:
        """Estimate a stage: what it took last, else the mean of its group, else a first guess at
        the pace at which this machine and suite ran other stages.
        """
        if name in self._known:
            return self._known[name]
        alike = [value for key, value in self._known.items() if _group(key) == _group(name)]
        guess = _first_guess(name)
        if not alike and guess is not None:
            return guess * self._pace
        return statistics.mean(alike or self._known.values() or [_UNKNOWN])

    def priorities(self) -> dict[str, float]:
        """Compute the seconds from each stage's start to the end of all that waits for it, if
        there were a worker for every stage.
        """
        found: dict[str, float] = {}
        for name in reversed(self._order):
            below = [found[other] for other in self._downstream[name]]
            found[name] = self.seconds(name) + max(below, default=0.0)
        return found

    def left(self, waiting: Collection[str], running: Mapping[str, float], workers: int) -> float:
        """Estimate the seconds until all is done; `running` maps each stage at work to the
        seconds that it has run.
        """
        longest = self.priorities()
        work = sum(max(self.seconds(name) - ran, 0.0) for name, ran in running.items())
        work += sum(self.seconds(name) for name in waiting)
        chains = [longest[name] for name in waiting]
        chains += [longest[name] - ran for name, ran in running.items()]
        return max(work / workers, max(chains, default=0.0), 0.0)

    def learn(self, name: str, seconds: float) -> None:
        """Remember what a stage took."""
        self._known[name] = seconds
        self._pace = _pace(self._known)

    def save(self) -> None:
        """Write what is known, for the next run."""
        with atomic_write(self._path) as temporary:
            temporary.write_text(json.dumps(self._known, indent=1))


def _group(name: str) -> str:
    return name.split("@")[0]


def _pace(known: Mapping[str, float]) -> float:
    """Compute how many times as long as guessed stages took."""
    guesses = {name: guess for name in known if (guess := _first_guess(name)) is not None}
    took = sum(known[name] for name in guesses)
    return (took + _AS_GUESSED) / (sum(guesses.values()) + _AS_GUESSED)


def _first_guess(name: str) -> float | None:
    """Give that of the longest name that a group begins with: `merge_median` is a `merge`."""
    words = _group(name).split("_")
    names = ("_".join(words[:count]) for count in range(len(words), 0, -1))
    return next((_FIRST_GUESS[name] for name in names if name in _FIRST_GUESS), None)


def _load(path: Path) -> dict[str, float]:
    return {
        name: float(value)
        for name, value in read_object(path).items()
        if isinstance(value, int | float) and 0 <= value < _LONGEST  # not-a-number is neither
    }
