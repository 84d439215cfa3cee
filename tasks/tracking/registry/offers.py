"""What a suite's results offer to the registry: the best merged model, and what it is made of."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adamerge_core.errors import InputError
from tasks.graph import params_yaml, paths
from tasks.graph.dvc_lock import Locked, read_lock
from tasks.graph.paths import PROTOCOLS
from tasks.report import results
from tasks.report.rows import Row
from tasks.running.hashes import digest, md5
from tasks.suite.tolerances import Tolerances
from tasks.tracking.registry.model_record import ModelRecord, record_of, test_images


@dataclass(frozen=True)
class Offer:
    """What a pipeline's run ended with: its best merged model."""

    row: Row
    """Its held-out accuracies."""
    path: Path
    md5: str
    images: str
    """A hash of what it was measured on."""
    record: ModelRecord | None
    """None: what it is made of cannot be told, and `fault` says why."""
    fault: str
    evaluation: Mapping[str, str]
    """The table of its accuracies: its md5, by path."""

    @property
    def content(self) -> str:
        """A hash of all that the version is made of."""
        return self.record.content if self.record else digest([self.path.as_posix(), self.md5])


def best_offer(suite: str) -> Offer | None:
    """Describe the best merged model of a suite's results; None where there is none with a file.

    What keeps it from being loaded is said in the offer: a run does not fail over it. Raises
    InputError where the results are not of the models that dvc.lock names now.
    """
    row = results.best_merged(results.read(suite), results.references(suite))
    if row is None:
        return None
    lock = read_lock()
    evaluation = paths.evaluation(suite, row.method, row.seed).as_posix()
    entry = _writer(lock, evaluation)
    path = _weights(suite, row, entry)
    if path is None:
        return None
    if entry is None:
        fault = "no stage in dvc.lock measured it"
        return Offer(row, path, md5(path), "", None, fault, {})
    _check_results(suite, lock, evaluation, entry.outs[evaluation])
    images, evaluated = test_images(entry), {evaluation: entry.outs[evaluation]}
    try:
        record = record_of(entry, lock, path)
    except InputError as error:
        fault, content = "; ".join(error.lines), entry.deps[path.as_posix()]
        return Offer(row, path, content, images, None, fault, evaluated)
    return Offer(row, path, record.encoder.md5, images, record, "", evaluated)


def _writer(lock: Mapping[str, Locked], path: str) -> Locked | None:
    """Find what dvc.lock says of the stage that wrote a file."""
    return next((each for each in lock.values() if path in each.outs), None)


def _check_results(suite: str, lock: Mapping[str, Locked], evaluation: str, content: str) -> None:
    """Raise InputError unless the results were made of this evaluation: a run that failed, or ran
    some stages alone, leaves older ones.
    """
    path = paths.report(suite) / results.RESULTS_CSV
    report = _writer(lock, path.as_posix())
    if report is None or report.deps.get(evaluation) != content:
        raise InputError(f"{path} is not of the models in dvc.lock; bring it up to date: dvc repro")
    if md5(path) != report.outs[path.as_posix()]:
        raise InputError(f"{path} is not as its stage wrote it; bring it back: dvc checkout")


def _weights(suite: str, row: Row, entry: Locked | None) -> Path | None:
    """Find the file that was measured: of methods that adapt the one adapted for the protocol."""
    files = (
        paths.merged(suite, row.method, row.seed, PROTOCOLS[1]),
        paths.merged(suite, row.method, row.seed),
    )
    there = (p for p in files if (p.as_posix() in entry.deps if entry else p.is_file()))
    return next(there, None)


def tolerances_of(start: Mapping[str, Any]) -> Tolerances:
    """Read the section `registry` that a pipeline's run began with.

    A run of stages without a flow began with no parameters: then params.yaml has them, if it is
    still of the same suite. Raises InputError where nothing says them.
    """
    params = start["params"]
    if start.get("adopted") and params_yaml.suite_name() == start["suite"]:
        params = params_yaml.read_params()
    if Tolerances.key not in params:
        raise InputError("params.yaml has no section registry, or is of another suite now")
    return Tolerances.of(params)
