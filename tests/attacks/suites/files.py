"""What the cases of suites share: the shipped suite as values, a file of it, its graph."""

import copy
import logging
import os
import shutil
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tasks import wiring
from tasks.graph import dvc_yaml
from tasks.suite.schema import Suite, load_suite
from tests.attacks.cases import FaultError

ROOT = Path(__file__).parents[3]
MINI = ROOT / "suites" / "mini.yaml"


@cache
def _mini() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(MINI.read_text(encoding="utf-8"))
    return content


def mini() -> dict[str, Any]:
    """Give the content of suites/mini.yaml, to change."""
    return copy.deepcopy(_mini())


def folder_entry(path: str = "/srv/images") -> dict[str, Any]:
    """Give a dataset's entry of a user's own folder."""
    return {"source": "image_folder", "path": path, "templates": ["a {}."]}


def put(content: Any, place: Iterable[Any], value: Any) -> Any:
    """Put a value at keys that lead into nested content; return the content."""
    *above, last = place
    inner = content
    for key in above:
        inner = inner[key]
    inner[last] = value
    return content


class _Quoting(yaml.SafeDumper):
    """Puts every text in quotes: what a test calls text is that to every reader."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _quoted(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"')


_Quoting.add_representer(str, _quoted)


def write(content: Any, path: Path = Path("suite.yaml")) -> Path:
    """Write content as a YAML file."""
    text = yaml.dump(content, Dumper=_Quoting, sort_keys=False, width=10**6)
    path.write_text(text, encoding="utf-8")
    return path


def here(folder: Path) -> None:
    """Make the folder a project: with the code, from which the graph is made, and the suites."""
    for name in ("tasks", "adamerge_core"):
        (folder / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "suites", folder / "suites")


def graph_read_back(content: Any, folder: Path) -> Suite:
    """Load a suite, write its graph and read it back; raise FaultError where it differs."""
    if not (folder / "tasks").exists():
        here(folder)
    path = write(content)
    suite = load_suite(path)
    shutil.copy(path, "params.yaml")
    Path("dvc.yaml").write_text(wiring.dvc_yaml(suite), encoding="utf-8")
    misfits = wiring.misfits(suite)
    if misfits:
        raise FaultError(f"read back otherwise: {misfits[:5]}")
    return suite


def same_to_dvc(suite: Suite) -> None:
    """Raise FaultError unless DVC reads the same stages, paths and parameters from dvc.yaml."""
    from dvc.dependency import ParamsDependency
    from dvc.repo import Repo

    os.environ["DVC_NO_ANALYTICS"] = "1"
    logging.getLogger("dvc").setLevel(logging.ERROR)
    wanted = wiring.stages(suite)
    with Repo.init(".", no_scm=True) as repo:
        seen = {stage.addressing: stage for stage in repo.index.stages}
        if set(seen) != set(wanted):
            raise FaultError(f"other stages: {sorted(set(seen) ^ set(wanted))[:5]}")
        for name, stage in wanted.items():
            deps = [dep for dep in seen[name].deps if not isinstance(dep, ParamsDependency)]
            params = [dep for dep in seen[name].deps if isinstance(dep, ParamsDependency)]
            pairs = {
                "cmd": (seen[name].cmd, stage.cmd),
                "deps": (sorted(dep.def_path for dep in deps), sorted(stage.deps)),
                "outs": (sorted(o.def_path for o in seen[name].outs), sorted(stage.files)),
                "params": (sorted(k for p in params for k in p.params), sorted(stage.params)),
            }
            for what, (found, ours) in pairs.items():
                if found != ours:
                    raise FaultError(f"{name}: {what} {found!r} to DVC, {ours!r} to us")
            for dep in params:
                values = dep.read_params()
                missing = [key for key in dep.params if key not in values]
                if missing:
                    raise FaultError(f"{name}: DVC finds no {missing}")


def parsed(path: Path) -> dict[str, dvc_yaml.Stage]:
    """Read a dvc.yaml."""
    return dvc_yaml.read(path)
