"""Other users: their projects, and what they can reach."""

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
    call,
    command,
    expect,
    is_undisturbed,
)
from tests.attacks.surroundings.works import IS_ROOT, OTHER, case, works


def _status_as_other(project: projects.Project, told: list[str], codes: tuple[int, ...]) -> None:
    """Ask for the status as another user; raise FaultError unless it tells that, and ends so."""
    done = call(
        project,
        "status",
        env={"HOME": "/nonexistent"},
        user=OTHER,
        group=OTHER,
        extra_groups=[],
    )
    said(done.stdout + done.stderr, told)
    expect(done.returncode in codes, f"code {done.returncode}: {done.stderr}")


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
        _status_as_other(project, told, (code,))

    yield case("another user's project", partial(other, False, ["chown", "cannot be written"], 1))
    yield case("a user without a home", partial(other, True, ["8 of 8"], 0))

    def unreadable(path: str, told: list[str], folder: Path) -> None:
        folder.chmod(0o755)
        project = projects.copy(folder / "toy")
        subprocess.run(["chown", "-R", str(OTHER), str(project.root)], check=True)
        Path(path).chmod(0)
        _status_as_other(project, [path, *told], (1, 2))

    for path in (".adamerge", ".dvc/tmp", ".dvc/cache", "mlflow.db", "dvc.lock", "mlartifacts"):
        yield case(f"{path} without any right", partial(unreadable, path, ["chmod"]))

    def object_without_right(folder: Path) -> None:
        folder.chmod(0o755)
        project = projects.copy(folder / "toy")
        cached = projects.object_of(GROWN)
        Path(GROWN).unlink()
        subprocess.run(["chown", "-R", str(OTHER), str(project.root)], check=True)
        cached.chmod(0)
        os.setgroups([])
        os.setgid(OTHER)
        os.setuid(OTHER)
        os.environ["HOME"] = "/nonexistent"
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
