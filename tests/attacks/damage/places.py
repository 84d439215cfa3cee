"""Files where folders belong, the other way round, and what does not belong in small files."""

import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from tests.attacks import projects
from tests.attacks.cases import Case, said
from tests.attacks.damage.harms import case
from tests.attacks.projects import (
    bring_up,
    command,
    expect,
    is_undisturbed,
)


def _places() -> Iterator[Case]:
    from tasks.running import upkeep

    def replaced(path: Path, make: Callable[[Path], object], project: projects.Project) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        make(path)
        code, text = command("status")
        said(text, [str(path), "moved to"])
        expect(code == 0, text)
        code, text = command("status")
        said(text, [])
        expect(code == 0 and "moved to" not in text, "not mended for good")
        is_undisturbed(project)

    for path in upkeep._FOLDERS[::2]:
        if path != upkeep.ASIDE:
            yield case(f"{path} is a file", partial(replaced, path, lambda p: p.write_text("x")))
    yield case(
        f"{upkeep.ASIDE} is a file",
        partial(replaced, upkeep.ASIDE, lambda p: p.write_text("x")),
    )
    for path in upkeep._FILES[::2]:
        yield case(f"{path} is a folder", partial(replaced, path, Path.mkdir))
    for path in upkeep._FILES[:1]:
        yield case(f"{path} is a fifo", partial(replaced, path, os.mkfifo))

    def dangling(path: Path, project: projects.Project) -> None:
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        path.symlink_to("/nowhere/at/all")
        code, text = command("status")
        said(text, [str(path), "/nowhere/at/all", "remove the link"])
        expect(code == 1, f"code {code}")
        expect(path.is_symlink(), "the link is gone")

    for path in (upkeep._FOLDERS[0], upkeep._FOLDERS[-1], upkeep._FILES[-1]):
        yield case(f"{path} leads to nothing", partial(dangling, path), "low")


def _small() -> Iterator[Case]:
    """Small files of the pipeline's own, with what does not belong there."""
    contents = {
        "garbage": bytes(range(256)),
        "an object": b'{"port": "x", "pid": [], "host": 7, "root": 5}',
    }

    def harmed(path: str, content: bytes, project: projects.Project) -> None:
        from flows import estimates, servers
        from tasks.running import processes
        from tasks.running.json_files import read_object

        place = Path(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
        if "durations" in path:
            estimates.Estimates({"merge": ()}).seconds("merge")
        elif "server" in path:
            name = "MLflow" if "mlflow" in path else "Prefect"
            expect(servers.running(name) is None, "found a server")
        elif "flow_runs" in path:
            expect(not processes.is_alive(read_object(place)), "is told to be alive")
        else:
            code, text = command("status")
            said(text, [])
            expect(code == 0, text)

    places = (
        ".adamerge/durations.json",
        ".adamerge/prefect-server.json",
        ".adamerge/mlflow-server.json",
        ".adamerge/flow_runs/7c9e6679-7425-40de-944b-e07fc1f90ae7",
        ".dvc/tmp/rwlock",
        ".dvc/tmp/lock",
        ".dvc/tmp/btime",
        ".adamerge/run.lock",
    )
    for path in places:
        for name, content in contents.items():
            yield case(f"{path}: {name}", partial(harmed, path, content))

    def state(content: bytes, project: projects.Project) -> None:
        command("status")
        for path in Path(".adamerge/dvc").rglob("cache.db"):
            path.write_bytes(content)
        code, text = command("status")
        said(text, [])
        expect(code == 0, text)
        bring_up()
        is_undisturbed(project)

    garbage = partial(state, contents["garbage"])
    yield case("DVC's database of hashes: garbage", garbage)


def cases() -> Iterator[Case]:
    """Give the cases of this part."""
    yield from _places()
    yield from _small()
