"""Runs of a pipeline that end with a merged model, as their files and journals tell of them.

The weights are a few bytes: what the registry does with a model needs none that can be loaded.
"""

import json
import uuid
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import yaml

from adamerge_core.vision.images import save_array
from tasks.graph import paths
from tasks.graph.paths import PROTOCOLS
from tasks.report.results import results_csv
from tasks.report.rows import Row
from tasks.running import journal
from tasks.running.hashes import md5
from tasks.running.journal import Journal
from tasks.tracking import ingest

METHOD = "ties_merging"


def run_with(
    weights: str, accuracies: Mapping[str, float], images: int = 0, *, whole: bool = True
) -> None:
    """A run of the suite toy whose best model has these weights and held-out accuracies; its
    journals are brought into MLflow. images: what is tested on; whole: whether the classes' names
    are there.
    """
    begin_run(weights, accuracies, images, whole=whole)
    ingest.ingest()


def begin_run(
    weights: str, accuracies: Mapping[str, float], images: int = 0, *, whole: bool = True
) -> None:
    """The same, the journals still waiting."""
    tasks = list(accuracies)
    inputs = [*_heads(tasks), *_test_images(tasks, images)]
    classes = [_classes(task) for task in tasks]
    merged = paths.merged("toy", METHOD, 0)
    merged.parent.mkdir(parents=True, exist_ok=True)
    merged.write_text(weights)
    evaluation = paths.evaluation("toy", METHOD, 0)
    evaluation.parent.mkdir(parents=True, exist_ok=True)
    evaluation.write_text(f"step\n{weights}\n")
    _results(accuracies)
    params = {
        "model": {"name": "m", "architecture": "efficientnet_lite0_clip", "weights": {}},
        "tasks": tasks,
        "evaluate.held_out_fraction": 0.5,
    }
    stages = {
        "download": ([], classes, {}),
        "merge": ([], [merged], {}),
        "evaluate": ([merged, *inputs], [evaluation], params),
        "report": ([evaluation], [paths.report("toy") / "results.csv"], {}),
    }
    Path("dvc.lock").write_text(yaml.safe_dump({"stages": _entries(stages)}))
    if not whole:
        for path in classes:
            path.unlink()
    key = uuid.uuid4().hex
    log = journal.start_pipeline(key, f"run-{key[:4]}", "adamerge run")
    for name, (deps, outs, given) in stages.items():
        one = Journal()
        about = {"stage": name, "cmd": f"python {name}.py", "pipeline": key, "suite": "toy"}
        known = {path.as_posix(): md5(path) for path in (*deps, *outs) if path.is_file()}
        read = {path.as_posix(): known[path.as_posix()] for path in deps}
        one.start("stage", **about, params=given, deps=read, commit=None, dirty=True)
        wrote = {path.as_posix(): known[path.as_posix()] for path in outs if path.is_file()}
        one.end("FINISHED", outs=wrote, signature=name)
    log.end("FINISHED", counts={"run": len(stages)})


def _heads(tasks: list[str]) -> list[Path]:
    for task in tasks:
        path = paths.head("m", task)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"head of {task}")
    return [paths.head("m", task) for task in tasks]


def _test_images(tasks: list[str], images: int) -> list[Path]:
    found = []
    for task in tasks:
        files = paths.images(task, 8, "test"), paths.labels(task, 8, "test")
        save_array(files[0], np.full((4, 8, 8, 3), images, np.uint8))
        save_array(files[1], np.zeros(4, np.int64))
        found += files
    return found


def _classes(task: str) -> Path:
    path = paths.classes(task)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"classes": ["one", "two"], "templates": ["{}"]}))
    return path


def _results(accuracies: Mapping[str, float]) -> None:
    average = sum(accuracies.values()) / len(accuracies)
    rows = [Row(METHOD, p, 0, {**accuracies, "average": average}) for p in PROTOCOLS]
    path = paths.report("toy") / "results.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(results_csv(rows, list(accuracies)))


def _entries(
    stages: Mapping[str, tuple[list[Path], list[Path], Mapping[str, object]]],
) -> dict[str, object]:
    return {
        name: {
            "cmd": name,
            "deps": [{"path": path.as_posix(), "md5": md5(path)} for path in deps],
            "outs": [{"path": path.as_posix(), "md5": md5(path)} for path in outs],
            "params": {"params.yaml": dict(params)},
        }
        for name, (deps, outs, params) in stages.items()
    }
