"""Where a project stands: names of folders, copies, moves."""

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tests.attacks import projects
from tests.attacks.cases import Case, said
from tests.attacks.projects import (
    GROWN,
    REPORT,
    bring_up,
    command,
    expect,
    is_undisturbed,
)
from tests.attacks.surroundings.works import artifacts_open, case, says_all_is_well, tree, works

_NAMES = {
    "blanks and quotes": """a b  c, it's "here\"""",
    "letters beyond ASCII": "Zürich–模型🙂",
    "what a shell reads": "$HOME ${x};a:b\\c*d",
    "what addresses read": "a#b&c=d@e+f,g",
    "brackets": "[x]{y}(z)",
    "a dash, a dot and a tilde in front": "-rf/.hidden/~root",
}


def _names() -> Iterator[Case]:
    def named(name: str, folder: Path) -> None:
        project = projects.copy(folder / name / "toy")
        says_all_is_well()
        Path(GROWN).unlink()
        bring_up("grow@a")
        is_undisturbed(project)
        artifacts_open(project)

    for what, name in _NAMES.items():
        yield case(f"a path with {what}", partial(named, name))

    def refused(name: str, told: list[str], folder: Path) -> None:
        projects.copy(folder / name / "toy")
        code, text = command("status")
        said(text, [name, *told])
        expect(code == 2, f"code {code}")
        top = name.split("/")[0]
        expect([path.name for path in folder.iterdir()] == [top], "wrote beside the project")

    signs = ["must not hold ? or %", "rename the folder"]
    for name in ("what?", "%41"):
        yield case(f"a path with {name}", partial(refused, name, signs))
    size = ["it must have at most 400", "move the project"]
    long = "/".join(["x" * 200] * 8)
    yield case("a path of 1,600 characters", partial(refused, long, size))

    def longest(folder: Path) -> None:
        left = 400 - len(str(folder / "x" / "toy"))
        named(f"{'x' * 200}/{'x' * (left - 200)}", folder)

    yield case("a path of 400 characters", longest)

    def linked(folder: Path) -> None:
        projects.copy(folder / "real")
        (folder / "link").symlink_to(folder / "real")
        project = projects.enter(folder / "link")
        works(project, env={"PWD": str(folder / "link")})
        Path(GROWN).unlink()
        bring_up("grow@a")
        is_undisturbed(project)
        artifacts_open(project)

    yield case("a project reached through a link", linked)


def _moved() -> Iterator[Case]:
    def write(name: str) -> None:
        outs = {REPORT: projects.hashes()[REPORT]}
        from tests.attacks.damage.journals import END, START

        start = {**START, "run": name, "pipeline": f"p-{name}"}
        content = projects.events(start, {**END, "outs": outs})
        Path(".adamerge/journal", f"{name}.jsonl").write_bytes(content)

    def copied(name: str, folder: Path) -> None:
        first = projects.copy(folder / "first")
        command("status")  # its paths are those of this folder now
        before = tree(first.root)
        copy = folder / name / "copy"
        shutil.copytree(first.root, copy, symlinks=True)
        project = projects.enter(copy)
        write("new")
        says_all_is_well()
        expect(tree(first.root) == before, "the project that it was copied from has changed")
        artifacts_open(project)
        expect(tree(first.root) == before, "the project that it was copied from has changed")

    for name in ("second", _NAMES["blanks and quotes"]):
        yield case(f"a copy in {name!r} leaves the first as it was", partial(copied, name), "high")

    def moved(folder: Path) -> None:
        projects.copy(folder / "first")
        command("status")
        os.chdir(folder)
        (folder / "first").rename(folder / "second")
        project = projects.enter(folder / "second")
        write("new")
        works(project)
        artifacts_open(project)
        expect(not (folder / "first").exists(), "the old folder is made anew")

    yield case("a moved project", moved, "high")

    def back(folder: Path) -> None:
        project = projects.copy(folder / "first")
        for name in ("second", "first", "third"):
            os.chdir(folder)
            project.root.rename(folder / name)
            project = projects.enter(folder / name)
            write(f"run-{name}")
            says_all_is_well()
        artifacts_open(project)

    yield case("a project moved there and back", back, "high")

    def others_stay(folder: Path) -> None:
        """An experiment that a user put elsewhere stays there."""
        from tasks.tracking.store import Store

        projects.copy(folder / "first")
        elsewhere = (folder / "elsewhere").as_uri()
        Store().client.create_experiment("own", elsewhere)
        command("status")
        os.chdir(folder)
        (folder / "first").rename(folder / "second")
        projects.enter(folder / "second")
        own = Store().client.get_experiment_by_name("own")
        expect(own is not None and own.artifact_location == elsewhere, "was changed")

    yield case("an experiment of the user's own is not moved", others_stay)

    def alike(folder: Path) -> None:
        """Only whole folders are replaced: /a/mlartifacts is no part of /a/mlartifacts-old."""
        from tasks.tracking import database

        projects.copy(folder / "first")
        command("status")
        odd = "file:///first/mlartifacts-old/x"
        with contextlib.closing(sqlite3.connect("mlflow.db")) as connection:
            connection.execute("UPDATE runs SET artifact_uri = ? WHERE rowid = 1", (odd,))
            connection.commit()
        os.chdir(folder)
        (folder / "first").rename(folder / "second")
        projects.enter(folder / "second")
        database.relocate()
        with contextlib.closing(sqlite3.connect("mlflow.db")) as connection:
            (found,) = connection.execute(
                "SELECT artifact_uri FROM runs WHERE rowid = 1"
            ).fetchone()
        expect(found == odd, found)

    yield case("a location that only begins alike is kept", alike)

    def server_of_the_first(folder: Path) -> None:
        """A copy does not use the server that runs in the project that it was copied from."""
        import json

        from flows import servers
        from tasks.running import processes

        projects.copy(folder / "first")
        about = {"port": 4200, "root": str(folder / "first"), **processes.process_facts()}
        servers._answers = lambda url: True
        servers.record_path("Prefect").write_text(json.dumps(about))
        expect(servers.running("Prefect") is not None, "its own server is not found")
        shutil.copytree(folder / "first", folder / "second")
        projects.enter(folder / "second")
        expect(servers.running("Prefect") is None, "the copy uses the first one's server")

    yield case("a copy has no server of the first", server_of_the_first, "high")


def cases() -> Iterator[Case]:
    """Give the cases of this part."""
    yield from _names()
    yield from _moved()
