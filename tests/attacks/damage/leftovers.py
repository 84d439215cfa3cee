"""What a kill or a full disk leaves."""

import contextlib
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from adamerge_core.atomic import atomic_write, sweep
from tests.attacks import projects
from tests.attacks.cases import Case
from tests.attacks.damage.harms import case
from tests.attacks.projects import (
    GROWN,
    bring_up,
    expect,
    is_undisturbed,
)


def cases() -> Iterator[Case]:
    ours = f".{2**22 + 5}-{'0' * 32}.part"
    theirs = ".AbCdEfGhIjKlMnOpQrStUv.tmp"
    swept = {
        "a copy of DVC's in data/": f"data/suites/toy/grown/{theirs}",
        "a copy of DVC's with - and _": "data/.-_cdEfGhIjKlMnOpQrSt-_.tmp",
        "a copy of DVC's in the cache": f".dvc/cache/files/md5/{theirs}",
        "a copy of DVC's in a folder of the cache": f".dvc/cache/files/md5/00/{theirs}",
        "a part of a dead process": f"data/suites/toy/grown/{ours}.txt",
        "a part of params.yaml": f"{ours}.yaml",
        "a part without a suffix": f"data/{ours}",
        "a part among the journals": f".adamerge/journal/{ours}.state",
    }
    kept = {
        "a user's .tmp": "data/.notes.tmp",
        "one character more": "data/.AbCdEfGhIjKlMnOpQrStUvW.tmp",
        "one character less": "data/.AbCdEfGhIjKlMnOpQrStU.tmp",
        "no dot": "data/AbCdEfGhIjKlMnOpQrStUv.tmp",
        "another suffix": "data/.AbCdEfGhIjKlMnOpQrStUv.tmp.txt",
        "a blank in it": "data/.AbCdEfGhIjKlMnOpQrStU .tmp",
        "a user's .part": "data/.film.part",
        "31 digits": f"data/.{2**22 + 5}-{'0' * 31}.part",
        "a part of a living process": f"data/.{os.getpid()}-{'0' * 32}.part.npy",
        "a copy of DVC's outside": f"docs/{theirs}",
        "in the root": f"{theirs}",
    }

    def left(path: str, gone: bool, project: projects.Project) -> None:
        from flows.dvc import internals

        place = Path(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text("half")
        internals.sweep()
        expect(place.exists() != gone, "is there" if gone else "is gone")
        is_undisturbed(project) if gone else None

    for name, path in swept.items():
        yield case(f"swept: {name}", partial(left, path, True), "low")
    for name, path in kept.items():
        yield case(f"kept: {name}", partial(left, path, False), "high")

    def link_kept(project: projects.Project) -> None:
        from flows.dvc import internals

        Path(f"data/{theirs}").symlink_to("params.yaml")
        Path("data/.WbCdEfGhIjKlMnOpQrStUv.tmp").mkdir()
        internals.sweep()
        expect(Path(f"data/{theirs}").is_symlink(), "a link is gone")
        expect(Path("data/.WbCdEfGhIjKlMnOpQrStUv.tmp").is_dir(), "a folder is gone")

    yield case("kept: a link and a folder of such names", link_kept)

    def busy(project: projects.Project) -> None:
        """While another DVC process is at work its copies are not touched."""
        import fcntl

        from flows.dvc import internals

        place = Path(f"data/{theirs}")
        place.write_text("half")
        with Path(".dvc/tmp/lock").open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            internals.sweep()
        expect(place.exists(), "was removed under another process")

    yield case("kept: a copy while another DVC process works", busy, "high")

    def full(project: projects.Project) -> None:
        """A limit for the size of files stands for a disk that fails in the middle of a copy."""
        import resource

        Path(GROWN).unlink()
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
        with contextlib.suppress(Exception):
            bring_up()
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        bring_up()
        is_undisturbed(project)

    yield case("a limit for the size of files", full)

    def killed(project: projects.Project) -> None:
        pid = os.fork()
        if pid == 0:
            with atomic_write("data/x.bin") as temporary:
                temporary.write_bytes(b"half")
                os.kill(os.getpid(), 9)
        os.waitpid(pid, 0)
        expect(len(sweep(Path("data"))) == 1, "the part stays")
        expect(not Path("data/x.bin").exists(), "a half file")

    yield case("a kill in the middle of a write", killed)

    def error(number: int, told: str, project: projects.Project) -> None:
        from tasks.running import failures

        fault = OSError(number, os.strerror(number), "data/x.bin")
        text = failures.explain(fault)
        expect(text and told in text and ("data/x.bin" in text or number == 28), str(text))

    for number, text in (
        (28, "disk is full"),
        (27, "ulimit -f"),
        (24, "ulimit -n"),
        (5, "disk fails"),
        (30, "read-only"),
        (13, "right"),
        (36, "too long"),
    ):
        yield case(f"errno {number} is explained", partial(error, number, text), "low")
