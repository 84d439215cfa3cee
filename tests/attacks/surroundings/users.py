"""Other users: their projects, and what they can reach."""

import ctypes
import os
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from tests.attacks import projects
from tests.attacks.cases import Case, said
from tests.attacks.projects import (
    GROWN,
    bring_up,
    command,
    expect,
    is_undisturbed,
)
from tests.attacks.surroundings.works import IS_ROOT, OTHER, case, works


def _become_other(root: Path) -> None:
    """Go on as another user, in the project's folder.

    That user's Python may be able to import nothing: root's own folders are closed. So all that a
    status imports is imported before, by one in another copy.
    """
    folder = root.with_name("before")
    folder.mkdir()
    projects.copy(folder / "toy")
    command("status")
    bring_up("raw@a")
    projects.enter(root)
    os.setgroups([])
    os.setgid(OTHER)
    os.setuid(OTHER)
    os.environ["HOME"] = "/nonexistent"


_RIGHTS_OF_ROOT = 1 << 1 | 1 << 2  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
_VERSION, _DROP = 0x20080522, 24  # of capget's structures; PR_CAPBSET_DROP


def _obey_permissions() -> None:
    """Give up what lets root read and write files without a right to them, for children too."""
    libc = ctypes.CDLL(None, use_errno=True)
    header, sets = (ctypes.c_uint32 * 2)(_VERSION, 0), (ctypes.c_uint32 * 6)()
    libc.capget(header, sets)
    for number in range(3):  # effective, permitted, inheritable
        sets[number] &= ~_RIGHTS_OF_ROOT
    dropped = [libc.prctl(_DROP, capability, 0, 0, 0) for capability in (1, 2)]
    expect(not any(dropped) and libc.capset(header, sets) == 0, "root keeps its rights")


def _users() -> Iterator[Case]:
    if not IS_ROOT:
        return

    def other(own: bool, told: list[str], code: int, folder: Path) -> None:
        """Work as another user, in a project of root's, or in one's own."""
        for above in (folder, *folder.parents[:-1]):
            if above.stat().st_mode & 0o005 != 0o005 and above != Path("/tmp"):
                above.chmod(above.stat().st_mode | 0o055)
        project = projects.copy(folder / "toy")
        if own:
            subprocess.run(["chown", "-R", str(OTHER), str(project.root)], check=True)
        _become_other(project.root)
        found, text = command("status")
        said(text, told)
        expect(found == code, f"code {found}: {text}")

    yield case("another user's project", partial(other, False, ["chown", "cannot be written"], 1))
    yield case("a user without a home", partial(other, True, ["8 of 8"], 0))

    def unreadable(path: str, told: list[str], folder: Path) -> None:
        projects.copy(folder / "toy")
        Path(path).chmod(0)
        _obey_permissions()
        code, text = command("status")
        said(text, [path, *told])
        expect(code in (1, 2), f"code {code}: {text}")

    for path in (".adamerge", ".dvc/cache", "mlflow.db", "dvc.lock"):
        yield case(f"{path} without any right", partial(unreadable, path, ["chmod"]))

    def object_without_right(folder: Path) -> None:
        project = projects.copy(folder / "toy")
        projects.object_of(GROWN).chmod(0)
        Path(GROWN).unlink()
        _obey_permissions()
        _, text = bring_up()
        said(text, ["cannot be read"])
        is_undisturbed(project)

    yield case("a cache object without any right", object_without_right)


def _state() -> Iterator[Case]:
    def planted(folder: Path) -> None:
        """Another user puts a pickle where DVC would look for the hashes that it knows."""
        import pickle

        class Planted:
            def __reduce__(self) -> tuple[Any, ...]:
                return os.mkdir, (str(folder / "was-run"),)

        project = projects.copy(folder / "toy")
        shared = Path("/var/tmp/dvc/repo")
        before = set(shared.iterdir()) if shared.is_dir() else set()
        works(project)
        Path(GROWN).unlink()
        bring_up("grow@a")
        after = set(shared.iterdir()) if shared.is_dir() else set()
        expect(after == before, f"{after - before} lie where every user can write")
        found = list(Path(".adamerge/dvc").rglob("cache.db"))
        expect(found, "the hashes lie nowhere")
        for path in (Path(".adamerge/dvc"),):
            expect(not path.stat().st_mode & 0o077, f"{path} is open to others")
        expect(bool(pickle.dumps(Planted())) and not (folder / "was-run").exists(), "it was run")

    yield case("a pickle in DVC's folder for all users", planted, "critical")

    def opened(folder: Path) -> None:
        projects.copy(folder / "toy")
        command("status")
        Path(".adamerge/dvc").chmod(0o777)
        command("status")
        mode = Path(".adamerge/dvc").stat().st_mode & 0o777
        expect(mode == 0o700, f"{mode:o}")

    yield case("a folder of hashes that was opened is closed", opened, "critical")


def cases() -> Iterator[Case]:
    """Give the cases of this part."""
    yield from _users()
    yield from _state()
