"""dvc.lock, dvc.yaml and DVC's configuration."""

import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from tests.attacks import projects
from tests.attacks.cases import Case, said
from tests.attacks.damage.harms import case
from tests.attacks.projects import (
    GROWN,
    IMAGES,
    bring_up,
    command,
    expect,
    is_undisturbed,
)


def _lock() -> Iterator[Case]:
    def write(content: bytes | Callable[[bytes], bytes]) -> None:
        lock = Path("dvc.lock")
        lock.write_bytes(content if isinstance(content, bytes) else content(lock.read_bytes()))

    def is_folder() -> None:
        Path("dvc.lock").unlink()
        Path("dvc.lock").mkdir()
        Path("dvc.lock/x").write_text("x")

    conflict = b"<<<<<<< HEAD\nschema: '2.0'\n=======\nschema: '2.0'\n>>>>>>> other\n"
    contents: dict[str, bytes | Callable[[bytes], bytes]] = {
        "empty": b"",
        "not UTF-8": lambda text: text + b"# \xff\n",
        "a conflict of git": lambda text: conflict + text,
        "cut in the first md5's key": lambda text: text[: text.index(b"md5:") + 2],
        "stages is a list": b"schema: '2.0'\nstages: []\n",
    }
    harms: dict[str, Callable[[], object]] = {
        **{name: partial(write, content) for name, content in contents.items()},
        "a folder with a file": is_folder,
    }

    def restored(
        harm: Callable[[], object], aside: tuple[str, ...], project: projects.Project
    ) -> None:
        Path(IMAGES).unlink()
        harm()
        code, told = command("status")
        said(told, [*aside, "never run"])
        expect(code == 0, told)
        outcomes, _ = bring_up("raw@a")
        is_undisturbed(project)
        expect(outcomes == {"raw@a": "restored"}, f"was computed again: {outcomes}")

    for name, harm in harms.items():
        yield case(f"dvc.lock: {name}", partial(restored, harm, (".adamerge/aside/dvc.lock.1",)))
    # what is left is YAML: the other stages have never run, as far as anyone can tell
    begins = {
        "the first stage": lambda text: text[: text.index(b"  raw@b:")],
        "a part of the second": lambda text: text[
            : text.index(b"params:", text.index(b"  raw@b:"))
        ],
    }
    for name, cut in begins.items():
        yield case(f"dvc.lock: cut after {name}", partial(restored, partial(write, cut), ()))


def _broken_configs() -> Iterator[Case]:
    def told(
        path: str, content: bytes | None, words: tuple[str, ...], project: projects.Project
    ) -> None:
        Path(path).unlink()
        if content is not None:
            Path(path).write_bytes(content)
        code, text = command(*words)
        said(text, [path.split("/")[-1] if content is not None else ""])
        expect(code in (1, 2), f"code {code}: {text}")

    texts = {"garbage": bytes(range(256)), "a NUL": b"\0", "open": b"[core\n", "none": None}
    for name, content in texts.items():
        yield case(f".dvc/config: {name}", partial(_config, content), "low")
    for name, content in {
        **texts,
        "a list": b"[1]",
        "stages: 3": b"stages: 3\n",
        "empty": b"",
    }.items():
        run = partial(told, "dvc.yaml", content, ("status",))
        yield case(f"dvc.yaml: {name}; status", run, "low")
    lineage = partial(told, "dvc.yaml", texts["garbage"], ("lineage", GROWN))
    yield case("dvc.yaml: garbage; lineage", lineage, "low")


def _config(content: bytes | None, project: projects.Project) -> None:
    path = Path(".dvc/config")
    path.unlink()
    if content is None:  # DVC's own defaults do
        shutil.rmtree(".dvc")
    else:
        path.write_bytes(content)
    code, text = command("status")
    said(text, [".dvc"])
    expect(code in (1, 2), f"code {code}: {text}")


def cases() -> Iterator[Case]:
    """Give the cases of this part."""
    yield from _lock()
    yield from _broken_configs()
