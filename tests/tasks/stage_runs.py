"""Every stage of a suite run in this process, one after the other, as its own process would."""

from __future__ import annotations

import csv
import importlib
import json
from pathlib import Path

import yaml

from tasks import wiring
from tasks.graph import params_yaml
from tasks.graph.dvc_yaml import Stage
from tasks.running.hashes import md5
from tasks.running.stage import options
from tasks.running.work import Work
from tasks.suite.schema import Suite

STARTS = ("download", "prepare", "pretrain", "heads", "task_vectors", "finetune", "adapt")
"""What most suites of the tests begin with: made once a process of the same inputs."""

_starts: dict[str, dict[str, bytes]] = {}


def use(suite: Suite) -> None:
    Path("params.yaml").write_text(yaml.safe_dump(suite.raw, sort_keys=False), encoding="utf-8")


def work_of(stage: Stage) -> Work:
    """What a stage process gives to run(), from params.yaml: nothing that is not declared."""
    params = params_yaml.nested(params_yaml.values(stage.params))
    return Work(stage.name, options(stage.cmd), params, stage.deps)


def run_one(stage: Stage) -> None:
    importlib.import_module(_module(stage)).run(work_of(stage))


def _run_once(stage: Stage) -> None:
    """Run a stage, or write again what it wrote when it ran with the same inputs."""
    read = [Path(path) for path in stage.deps if not path.endswith(".py")]
    if not all(path.is_file() for path in read):  # a folder of a user's images
        run_one(stage)
        return
    hashes = [md5(path) for path in read]
    key = json.dumps([stage.cmd, stage.deps, hashes, work_of(stage).params])
    if key not in _starts:
        run_one(stage)
        _starts[key] = {path: Path(path).read_bytes() for path in stage.files}
    for path, content in _starts[key].items():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(content)


def run_all(suite: Suite, without: tuple[str, ...] = ()) -> list[Stage]:
    """Every stage once, in the order of the graph; each reads and writes what it declares.

    without: beginnings of the names of stages that are left out, with none that needs them left in.
    """
    stages = [s for s in wiring.stages(suite).values() if not s.name.startswith(without or "\0")]
    for stage in stages:
        missing = [
            path for path in stage.deps if path.startswith("data/") if not Path(path).exists()
        ]
        assert not missing, stage.name
        (_run_once if stage.name.startswith(STARTS) else run_one)(stage)
        assert [path for path in stage.files if not Path(path).is_file()] == [], stage.name
    return stages


def _module(stage: Stage) -> str:
    name = stage.cmd.split()[2]
    return f"{name}.__main__" if name == "tasks.report" else name


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
