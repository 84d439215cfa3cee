"""Paths of a user's images: carried as they are, or refused with the rule."""

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from tasks.suite.schema import load_suite
from tests.attacks.cases import Case, FaultError, refused
from tests.attacks.suites.files import (
    folder_entry,
    graph_read_back,
    here,
    mini,
    put,
    same_to_dvc,
    write,
)

PATHS = (
    *("/srv/a b", "/srv/ a", "/srv/a ", "/srv/a'b", '/srv/a"b', "/srv/a#b", "/srv/#", "/srv/@a"),
    *(
        "/srv/é",
        "/srv/e\u0301",
        "/srv/日本",
        "/srv/😀",
        "/srv/\u200fא",
        "/srv/a\u200bb",
        "/srv/a\u202eb",
    ),
    *(
        "/srv/a\\b",
        "/srv/*",
        "/srv/?",
        "/srv/[a]",
        "/srv/{a}",
        "/srv/$HOME",
        "/srv/%20",
        "/srv/a: b",
    ),
    *(
        "/srv/- a",
        "/srv/null",
        "/srv/1e3",
        "/srv/~",
        "/srv/a,b",
        "/srv/a;b",
        "/srv/a&b",
        "/srv/`id`",
    ),
    *(
        "/srv/$(id)",
        "/srv/<b>",
        "/srv/a|b",
        "/srv/!x",
        "/srv/...",
        "/srv/.a",
        "/srv/a=b",
        "/srv/--x",
    ),
    *("images", "./images", "../other", "images/a b", "~/images", "null", "no", "1e3", "007", "-x"),
    *("/srv/" + "x" * 255, "/srv/a\u00ad", "/srv/a.py", "$x", "@x", "#x", "'x'", "%x", "!x", "&x"),
)
NO_PATHS = {
    "/srv/${x}": "${", "${item.dataset}": "${", "/srv/\\${x}": "${", "/srv/a\x7f": "U+007F",
    "/srv/a\x85": "U+0085", "/srv/a\u2028": "U+2028", "/srv/a\nb": "U+000A", "/srv/a\tb": "U+0009",
    "/srv/\x1b[31m": "U+001B", "/srv/\x00": "U+0000", "\ufeff/srv": "U+FEFF",
    "s3://bucket/x": "address",
    "http://example.org/x": "address", "remote:x": "address", "file:///srv/x": "address",
    "C:/images": "address", "": "project itself", ".": "project itself", "..": "project itself",
    "/": "project itself", "a/..": "project itself", "data": "lies in data/",
    "data/datasets": "data/",
    "./data/x": "data/", "a/../data": "data/", ".dvc/cache": ".dvc/", ".git": ".git/",
    ".adamerge": ".adamerge/", "linked": "data/",
    "/srv/" + "x" * 256: "at most", "x/" * 600: "at most",
}  # fmt: skip


def _with_path(path: str) -> Any:
    content = put(mini(), ("datasets", "birds"), folder_entry(path))
    content["tasks"].append("birds")
    return content


def _path_carried(listed: tuple[str, ...], folder: Path) -> int:
    """Our reader and DVC's give each path back; nothing is left to write anew."""
    content = mini()
    for number, path in enumerate(listed):
        content["datasets"][f"birds{number}"] = folder_entry(path)
    suite = graph_read_back(content, folder)
    same_to_dvc(suite)
    for number, path in enumerate(listed):
        (found,) = suite.sources[f"birds{number}"].files()
        if found != Path(path):
            raise FaultError(f"{path!r} became {str(found)!r}")
    return len(listed)


def _no_path(folder: Path) -> int:
    here(folder)
    (folder / "data").mkdir()
    (folder / "linked").symlink_to("data")
    for path, told in NO_PATHS.items():
        refused(partial(load_suite, write(_with_path(path))), told)
    return len(NO_PATHS)


def _every_fault(folder: Path) -> None:
    content = mini()
    for number, path in enumerate(NO_PATHS):
        if not re.search("[\x00-\x1f\x7f-\x9f\u2028\ufeff]", path) and path != "linked":
            content["datasets"][f"birds{number}"] = folder_entry(path)
    error = refused(partial(load_suite, write(content)))
    missing = [
        key for key in content["datasets"] if "birds" in key and f".{key}." not in str(error)
    ]
    if missing:
        raise FaultError(f"{missing} are not told: {error}")


def cases() -> Iterator[Case]:
    """Give the cases of this part."""
    for first in range(0, len(PATHS), 7):
        part = PATHS[first : first + 7]
        yield Case(f"path: {first} to {first + len(part) - 1}", partial(_path_carried, part))
    yield Case("path: refused ones", _no_path, "high")
    yield Case("path: all faults at once", _every_fault, "low")
