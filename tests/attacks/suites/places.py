"""The command in odd places and on odd files: it finds its project, or says what is wrong."""

import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from adamerge_core.errors import InputError
from flows import project, suites
from tests.attacks.cases import Case, FaultError, refused, said
from tests.attacks.suites.files import MINI, ROOT, here, mini, write


def _command(*arguments: str, cwd: Path) -> str:
    """Run the command; give what it printed, and its exit code at the end."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return f"{done.stdout}{done.stderr}\nrc {done.returncode}"


def _subfolder(inner: str, folder: Path) -> None:
    here(folder)
    below = folder / inner
    below.mkdir(parents=True, exist_ok=True)
    said(_command("suite", "use", "mini", cwd=below), ["mini is active", "rc 0"])
    if not (folder / "params.yaml").is_file() or (below / "params.yaml").is_file():
        raise FaultError("params.yaml is not in the root")


def _relative_path(folder: Path) -> None:
    """A path is from where the user stands."""
    here(folder)
    below = folder / "data" / "suites"
    below.mkdir(parents=True)
    said(_command("suite", "use", "mini", cwd=below), ["rc 0"])
    text = _command("lineage", "mini/report/results.csv", cwd=below)
    said(text, ["data/suites/mini/report/results.csv", "is not there", "rc 2"])
    text = _command("lineage", str(below / "mini/report/results.csv"), cwd=folder)
    said(text, ["is not there", "rc 2"])


def _outside(folder: Path) -> None:
    for arguments in (["suite", "list"], ["status"], ["suite", "use", "mini"], ["run"]):
        said(_command(*arguments, cwd=folder), [str(folder), "in no project", "rc 2"])
    said(_command("methods", cwd=folder), ["task_arithmetic", "rc 0"])
    if list(folder.iterdir()):
        raise FaultError(f"left {list(folder.iterdir())}")


def _removed(folder: Path) -> None:
    gone = folder / "gone"
    gone.mkdir()
    os.chdir(gone)
    gone.rmdir()
    refused(project.enter, "was removed", "change to")


def _link(folder: Path) -> None:
    """A link into a project leads to it."""
    inside = folder / "project"
    inside.mkdir()
    here(inside)
    (folder / "link").symlink_to(inside / "suites")
    os.chdir(folder / "link")
    project.enter()
    if Path.cwd() != inside:
        raise FaultError(f"went to {Path.cwd()}")


def _inner_project(folder: Path) -> None:
    """The nearest project is meant."""
    inner = folder / "data" / "inner"
    inner.mkdir(parents=True)
    here(folder)
    here(inner)
    os.chdir(inner / "suites")
    project.enter()
    if Path.cwd() != inner:
        raise FaultError(f"went to {Path.cwd()}")


def _use(folder: Path) -> None:
    here(folder)
    suites.activate("mini", None, force=False)


def _faulty_beside(folder: Path) -> None:
    """A faulty suite hides no other, and does not keep the user from using them."""
    _use(folder)
    for name, text in {"bad": "a: [", "twice": "a: 1\na: 2\n", "Not A Name": "suite: x\n"}.items():
        (folder / "suites" / f"{name}.yaml").write_text(text)
    os.mkfifo(folder / "suites" / "pipe.yaml")
    (folder / "suites" / "folder.yaml").mkdir()
    suites.activate("mini", None, force=False)
    error = refused(suites.list_all, "bad.yaml", "twice.yaml", "Not A Name", "pipe", "folder")
    if "mini.yaml" in str(error):
        raise FaultError(str(error))


def _folder_for_params(name: str, folder: Path) -> None:
    here(folder)
    (folder / name).mkdir()
    refused(lambda: suites.activate("mini", None, force=True), name, "folder", "move it away")


def _kept(text: str, folder: Path) -> None:
    """params.yaml that is broken is the user's: never overwritten without being asked."""
    here(folder)
    (folder / "params.yaml").write_text(text)
    refused(lambda: suites.activate("mini", None, force=False), "changes of yours", "--force")
    if (folder / "params.yaml").read_text() != text:
        raise FaultError("it was overwritten")
    suites.activate("mini", None, force=True)


def _nothing_half(folder: Path) -> None:
    """A suite with faults leaves params.yaml and dvc.yaml as they were."""
    _use(folder)
    before = [(folder / name).read_bytes() for name in ("params.yaml", "dvc.yaml")]
    write(mini() | {"tasks": ["nothing"]}, folder / "suites" / "own.yaml")
    refused(lambda: suites.activate("own", None, force=False), "suites/own.yaml")
    if before != [(folder / name).read_bytes() for name in ("params.yaml", "dvc.yaml")]:
        raise FaultError("files changed")


SEEDS = {
    "a list of lines": "seeds:\n  - 0\n  - 1\n",
    "a list over lines": "seeds: [0,\n  1]\n",
    "an alias": "seeds: &s [0]\n",
    "in quotes": '"seeds": [0]\n',
    "a key with a blank": "seeds : [0]\n",
    "a long key": "? seeds\n: [0]\n",
}


def _seeds(line: str, folder: Path) -> None:
    """Other seeds are put where they stand, or it is said that they cannot be."""
    here(folder)
    path = folder / "suites" / "mini.yaml"
    text = MINI.read_text(encoding="utf-8")
    start = text.index("seeds:")
    path.write_text(text[:start] + line + text[text.index("\n", start) + 1 :], encoding="utf-8")
    try:
        suites.activate("mini", [5, 6], force=False)
    except InputError as error:
        if "seeds" not in str(error) or "suites/mini.yaml" not in str(error):
            raise FaultError(str(error)) from error
        return
    if "seeds: [5, 6]" not in (folder / "params.yaml").read_text(encoding="utf-8"):
        raise FaultError("other seeds")


def _bad_seeds(folder: Path) -> int:
    here(folder)
    tried = ([-1], [0, 0], [2**32], [10**30], list(range(201)))
    for seeds in tried:
        refused(lambda seeds=seeds: suites.activate("mini", seeds, force=False), "seeds")
    return len(tried)


def _name(folder: Path) -> int:
    here(folder)
    (folder.parent / "other.yaml").write_text("suite: other\n")
    tried = (
        "../other",
        "../../etc/passwd",
        "/etc/passwd",
        "",
        ".",
        "mini.yaml",
        "\x00",
        "mini\n",
        "é",
    )
    for name in tried:
        refused(lambda name=name: suites.activate(name or "nothing", None, force=False), "unknown")
    return len(tried)


def cases() -> Iterator[Case]:
    """Give the cases of this part."""
    for inner in ("suites", "data/suites/mini", "a b/é/$x"):
        yield Case(f"place: in {inner}", partial(_subfolder, inner), seconds=120)
    yield Case("place: a path from a subfolder", _relative_path, seconds=180)
    yield Case("place: outside of a project", _outside, seconds=180)
    yield Case("place: a folder that was removed", _removed)
    yield Case("place: a link into a project", _link, "low")
    yield Case("place: a project in a project", _inner_project, "low")
    yield Case("place: faulty suites beside others", _faulty_beside, "high")
    for name in ("params.yaml", "dvc.yaml"):
        yield Case(f"place: a folder called {name}", partial(_folder_for_params, name))
    for what, text in {"no YAML": "a: [", "a key twice": "a: 1\na: 2\n", "empty": ""}.items():
        yield Case(f"place: params.yaml with {what} is kept", partial(_kept, text), "high")
    yield Case("place: faults change no file", _nothing_half, "high")
    for what, line in SEEDS.items():
        yield Case(f"place: --seeds where they are {what}", partial(_seeds, line))
    yield Case("place: --seeds that are none", _bad_seeds)
    yield Case("place: names that lead elsewhere", _name, "high")
