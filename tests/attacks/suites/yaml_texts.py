"""Files that are no plain YAML: each is refused with its line, the rule and the fix, quickly."""

import json
import os
import socket
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from adamerge_core.errors import InputError
from tasks.graph import params_yaml
from tasks.suite.schema import load_params, load_suite
from tasks.suite.yaml_files import load_yaml
from tests.attacks.cases import Case, FaultError, refused
from tests.attacks.suites.files import MINI, parsed

_BOMB = (
    "a: &a ["
    + ", ".join(["x"] * 10)
    + "]\n"
    + "".join(
        f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n"
        for before, name in zip("abcdefgh", "bcdefghi", strict=True)
    )
)
_WIDE = (
    "a: &a {"
    + ", ".join(f"k{n}: {n}" for n in range(5000))
    + "}\n"
    + "".join(f"b{n}: *a\n" for n in range(100))
)

# by name: the text, and what the message tells
TEXTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "a key twice": ("a: 1\nb: 2\na: 3\n", ("line 3", "'a'", "line 1", "remove one")),
    "a key three times": ("a: 1\na: 2\na: 3\n", ("line 2", "line 3")),
    "keys twice in two mappings": (
        "x: {a: 1, a: 2}\ny:\n  b: 1\n  b: 2\n",
        ("'a'", "'b'", "2 faults"),
    ),
    "a key twice, once in quotes": ('a: 1\n"a": 2\n', ("line 2", "'a'")),
    "a key twice, once escaped": ('a: 1\n"\\x61": 2\n', ("line 2", "'a'")),
    "a key twice in a list's mapping": ("- {k: 1, k: 2}\n", ("'k'",)),
    "a key twice, deep": ("a: {b: {c: {d: 1, d: 2}}}\n", ("'d'",)),
    "a bomb of aliases": (_BOMB, ("repeat more than", "write out")),
    "a bomb of wide mappings": (_WIDE, ("repeat more than",)),
    "an anchor in itself": ("a: &a [*a]\n", ("*a", "refers to nothing")),
    "an anchor in itself, as a mapping": ("a: &a {b: *a}\n", ("*a",)),
    "an alias without an anchor": ("a: *nothing\n", ("*nothing",)),
    "an alias before its anchor": ("a: *x\nb: &x 1\n", ("*x", "line 1")),
    "an alias as a key": ("a: &a [1]\n*a : 2\n", ("line 2", "no text")),
    "a merge key": ("a: &a {x: 1}\nb:\n  <<: *a\n", ("<<", "line 3", "write the keys out")),
    "a merge of a list": ("a: {<<: [{x: 1}]}\n", ("<<",)),
    "the value =": ("a: =\n", ("'='", "quotes")),
    "3,000 lists in each other": ("a: " + "[" * 3000 + "]" * 3000, ("nest",)),
    "3,000 mappings in each other": ("{a: " * 3000 + "1" + "}" * 3000, ("nest",)),
    "40 lists in each other": ("a: " + "[" * 40 + "]" * 40, ("nested deeper", "mend")),
    "3,000 lists by dashes": ("- " * 3000 + "x\n", ("nested deeper",)),
    "3,000 lists by indents": ("".join(" " * n + "-\n" for n in range(3000)), ("nested deeper",)),
    "100,000 open brackets": ("[" * 100_000, ("nest",)),
    "a number of 5,000 digits": ("a: " + "7" * 5000, ("5000 digits", "at most 100")),
    "a fraction of 5,000 digits": ("a: 0." + "7" * 5000, ("digits",)),
    "a number of 5,000 digits as a key": ("7" * 5000 + ": 1\n", ("digits",)),
    "two million values": ("- 1\n" * 2_000_000, ("more than", "values")),
    "2020-99-99": ("a: 2020-99-99\n", ("2020-99-99", "quotes")),
    "a date": ("a: 2020-01-01\n", ("2020-01-01", "quotes")),
    "a time": ("a: 2020-01-01T99:99:99Z\n", ("quotes",)),
    "a tab as an indent": ("a:\n\tb: 1\n", ("line 2", "not readable")),
    "a byte order mark": ("\ufeffsuite: mini\n", ("U+FEFF", "remove")),
    "a byte order mark inside": ("a: x\ufeffy\n", ("U+FEFF",)),
    "NUL": ("suite: mi\x00ni\n", ("U+0000", "line 1")),
    "NUL, escaped": ('a: "x\\0y"\n', ("U+0000",)),
    "escape": ("a: \x1b[31mred\n", ("U+001B",)),
    "DEL": ("a: x\x7f\n", ("U+007F", "line 1")),
    "DEL, escaped": ('a: "x\\x7f"\n', ("U+007F",)),
    "U+0085": ("a: x\x85b: 2\n", ("U+0085",)),
    "U+0085, escaped": ('a: "x\\N"\n', ("U+0085",)),
    "U+2028": ("a: x\u2028b\n", ("U+2028",)),
    "U+2029, escaped": ('a: "\\P"\n', ("U+2029",)),
    "a character that is none": ('a: "\\uffff"\n', ("U+FFFF",)),
    "half a character": ('a: "\\ud800"\n', ("line 1", "escape code")),
    "beyond Unicode": ('a: "\\U00110000"\n', ("escape code",)),
    "all faults at once": (
        "a: 1\na: 2\nb: 017\nc: !x 1\nd: *d\n",
        ("4 faults", "line 2", "line 3", "line 4", "line 5"),
    ),
    "two documents": ("a: 1\n---\nb: 2\n", ("second document", "keep one")),
    "a document after its end": ("a: 1\n...\nb: 2\n", ("line 3", "mend the file")),
    "a directive": ("%YAML 1.1\n---\na: no\n", ("directive", "remove")),
    "a directive of tags": ("%TAG ! tag:x,2000:\n---\na: 1\n", ("directive",)),
    "a number as a key": ("7: a\n", ("7", "put it in quotes")),
    "null as a key": ("null: a\n", ("None", "put it in quotes")),
    "~ as a key": ("~: a\n", ("put it in quotes",)),
    "true as a key": ("true: a\n", ("True", "put it in quotes")),
    "1e3 as a key": ("1e3: a\n", ("1000.0", "put it in quotes")),
    "no key": (": a\n", ("line 1", "mend the file")),
    "a list as a key": ("? [a, b]\n: c\n", ("no text",)),
    "a mapping as a key": ("{a: 1}: c\n", ("no text",)),
    "a key of two lines": ('"a\\nb": 1\n', ("several lines",)),
    "an open bracket": ("a: [1, 2\n", ("not readable as YAML", "line")),
    "an open quote": ('a: "x\n', ("not readable as YAML",)),
    "a colon too many": ("a: b: c\n", ("not readable as YAML", "line 1")),
    "a bad indent": ("a:\n  b: 1\n c: 2\n", ("line 3", "not readable as YAML")),
    "an unknown escape": ('a: "\\q"\n', ("not readable as YAML",)),
    "a percent sign": ("%\n", ("not readable as YAML",)),
    "only an anchor's sign": ("a: &\n", ("not readable as YAML",)),
}

TAGS = (
    "!!python/object/apply:os.system [touch ran]",
    "!!python/object:os.system {}",
    "!!python/name:os.system",
    "!!python/module:antigravity",
    "!!python/tuple [1, 2]",
    "!!set {a, b}",
    "!!omap [a: 1]",
    "!!pairs [a: 1]",
    "!!binary aGVsbG8=",
    "!!timestamp 2020-01-01",
    "!!int '7'",
    "!!str 7",
    "!!float 7",
    "!!null x",
    "!!map {a: 1}",
    "!!seq [1]",
    "!custom x",
    "!<tag:example.org,2000:x> y",
    "! y",
)

NUMBERS = (
    *("017", "007", "08", "0o17", "0x1F", "0b1", "1_000", "1__0", "1_", "+0", "-0", "-0.0", "00"),
    *("1e400", "-1e400", "1_0.5", "0x_1", "-017", "-0x1F", "1_0e3", "-0e5", "+0b1"),
)

AGREED = {
    "no": "no", "on": "on", "y": "y", "NO": "NO", "1:30": "1:30", "1:30.5": "1:30.5",
    "1e3": 1000.0, "1e-3": 0.001, "1E3": 1000.0, "+1.5e+3": 1500.0, ".5": 0.5, "5.": 5.0,
    "null": None, "~": None, "Null": None, "true": True, "TRUE": True, "False": False,
    "12": 12, "-3": -3, "+5": 5, "0": 0, "0.0": 0.0, "_1": "_1", "0o8": "0o8", "1.2.3": "1.2.3",
    "1e": "1e", "0xZ": "0xZ", ".": ".", "-": None, "'017'": "017", '"null"': "null", "nan": "nan",
    "2020-1": "2020-1", "2020-1-2": "2020-1-2", "@a": None, "a#b": "a#b", "a: b": None,
}  # fmt: skip
"""What both we and DVC make of a plain value; None also where both refuse it."""

BYTES: dict[str, tuple[bytes, tuple[str, ...]]] = {
    "empty": (b"", ("no sections",)),
    "blank": (b"\n\n  \n", ("no sections",)),
    "a comment": (b"# nothing\n", ("no sections",)),
    "a document's beginning": (b"---\n", ("no sections",)),
    "a list": (b"- a\n- b\n", ("no sections",)),
    "text": (b"just text\n", ("no sections",)),
    "a number": (b"7\n", ("no sections",)),
    "UTF-16": ("suite: mini\n".encode("utf-16"), ("UTF-8",)),
    "UTF-16 without a mark": ("suite: mini\n".encode("utf-16-le"), ("U+0000",)),
    "UTF-32": ("suite: mini\n".encode("utf-32"), ("UTF-8",)),
    "Latin-1": ("suite: mïni\n".encode("latin-1"), ("UTF-8",)),
    "a cut character": ("suite: é".encode()[:-1], ("UTF-8",)),
    "a lone surrogate": (b"a: \xed\xa0\x80\n", ("UTF-8",)),
    "an overlong NUL": (b"a: \xc0\x80\n", ("UTF-8",)),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), ("UTF-8",)),
    "a zip": (b"PK\x03\x04" + b"\x00" * 60, ("U+0003",)),
    "a program": (b"\x7fELF\x02\x01\x01" + b"\x00" * 60, ("U+007F",)),
    "one long line": (b"a" * 2**20 + b": 1\n", ("",)),
}


def _text(text: str, told: tuple[str, ...], folder: Path) -> None:
    path = folder / "suite.yaml"
    path.write_text(text, encoding="utf-8")
    refused(lambda: load_suite(path), str(path), *told)
    if (folder / "ran").exists():
        raise FaultError("a command ran")


def _bytes(content: bytes, told: tuple[str, ...], folder: Path) -> None:
    path = folder / "suite.yaml"
    path.write_bytes(content)
    refused(lambda: load_suite(path), *told)


def _numbers(folder: Path) -> int:
    for number in NUMBERS:
        _text(f"a: {number}\n", ("line 1", number.lstrip("-+")), folder)
    return len(NUMBERS)


def _agree(folder: Path) -> int:
    for text, value in AGREED.items():
        _agrees(text, value, folder)
    return len(AGREED)


def _agrees(text: str, value: object, folder: Path) -> None:
    """What we read is what DVC reads, or we refuse it."""
    from dvc.utils.serialize import ParseError, parse_yaml

    path = folder / "a.yaml"
    path.write_text(f"a: {text}\n", encoding="utf-8")
    try:
        ours = load_yaml(path)["a"]
    except InputError:
        ours = None
    try:
        theirs = parse_yaml(path.read_text(encoding="utf-8"), str(path))["a"]
    except ParseError:
        theirs = None
    if not ours == theirs == value or type(ours) is not type(theirs):
        raise FaultError(f"{text} is {ours!r} to us, {theirs!r} to DVC; it must be {value!r}")


def _like_dvc(folder: Path) -> None:
    """All shipped YAML files are the same to us and to DVC."""
    from dvc.utils.serialize import parse_yaml

    root = MINI.parent.parent
    for path in (*root.glob("suites/*.yaml"), root / "dvc.yaml", root / "prefect.yaml"):
        if load_yaml(path) != parse_yaml(path.read_text(encoding="utf-8"), str(path)):
            raise FaultError(f"{path} is another to DVC")


# --- what is no file ------------------------------------------------------------------------------


def _socket(path: Path) -> None:
    socket.socket(socket.AF_UNIX).bind(str(path))


def _large(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(100 * 2**20)


def _link(target: str, path: Path) -> None:
    path.symlink_to(target)


def _unreadable(path: Path) -> None:
    path.write_bytes(MINI.read_bytes())
    path.chmod(0)
    if os.geteuid() == 0:  # who may read everything
        os.setresuid(65534, 65534, 65534)


KINDS: dict[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    "a folder": (Path.mkdir, ("folder",)),
    "a pipe": (os.mkfifo, ("pipe",)),
    "a socket": (_socket, ("socket",)),
    "a link to /dev/zero": (partial(_link, "/dev/zero"), ("device",)),
    "a link to /dev/null": (partial(_link, "/dev/null"), ("device",)),
    "a link to a folder": (partial(_link, "/tmp"), ("folder",)),
    "a link to nothing": (partial(_link, "nowhere"), ("no such file",)),
    "a link to itself": (partial(_link, "params.yaml"), ("",)),
    "a file of 100 MB": (_large, ("at most 16 MB",)),
}

READERS: dict[str, tuple[str, Callable[[], object]]] = {
    "a suite": ("params.yaml", lambda: load_suite(Path("params.yaml"))),
    "params.yaml": ("params.yaml", load_params),
    "params.yaml of a stage": ("params.yaml", params_yaml.read_params),
    "dvc.yaml": ("dvc.yaml", lambda: parsed(Path("dvc.yaml"))),
}


def _kind(make: Callable[[Path], None], told: tuple[str, ...], reader: str, folder: Path) -> None:
    name, read = READERS[reader]
    make(folder / name)
    refused(read, name, *told)


def _no_permission(folder: Path) -> None:
    folder.chmod(0o755)
    _unreadable(folder / "params.yaml")
    refused(load_params, "params.yaml", "cannot be read")


# --- dvc.yaml -------------------------------------------------------------------------------------

_AXES = json.dumps({f"axis{n}": [0] * 100 for n in range(10)})

GRAPHS: dict[str, tuple[str, tuple[str, ...]]] = {
    "stages are a list": ("stages: [a]\n", ("holds no stages", "suite use")),
    "a stage is text": ("stages: {a: x}\n", ("a has no cmd",)),
    "a stage is nothing": ("stages: {a: }\n", ("a has no cmd",)),
    "a stage with foreach": ("stages: {a: {foreach: [1], do: {cmd: x}}}\n", ("foreach",)),
    "cmd is a number": ("stages: {a: {cmd: 7}}\n", ("a: cmd must be text",)),
    "cmd is a mapping": ("stages: {a: {cmd: {b: c}}}\n", ("cmd must be text",)),
    "cmd has a number": ("stages: {a: {cmd: [x, 7]}}\n", ("cmd must be text",)),
    "deps are text": ("stages: {a: {cmd: x, deps: b}}\n", ("deps must be a list",)),
    "deps have a number": ("stages: {a: {cmd: x, deps: [7]}}\n", ("deps must be",)),
    "deps have nothing": ("stages: {a: {cmd: x, deps: [null]}}\n", ("deps must be",)),
    "deps have an empty mapping": ("stages: {a: {cmd: x, deps: [{}]}}\n", ("deps must be",)),
    "outs are a mapping": ("stages: {a: {cmd: x, outs: {b: c}}}\n", ("outs must be",)),
    "metrics are true": ("stages: {a: {cmd: x, metrics: true}}\n", ("metrics must be",)),
    "params of a file are text": (
        "stages: {a: {cmd: x, params: [{params.yaml: b}]}}\n",
        ("params must be",),
    ),
    "matrix is a list": ("stages: {a: {cmd: x, matrix: [a]}}\n", ("matrix must have",)),
    "an axis is text": ("stages: {a: {cmd: x, matrix: {b: c}}}\n", ("matrix must have",)),
    "a matrix of 10^20 stages": (
        f"stages: {{a: {{cmd: x, matrix: {_AXES}}}}}\n",
        ("at most 100000 stages",),
    ),
    "faults of several stages": (
        "stages: {a: {cmd: 7}, b: 7}\n",
        ("2 faults", "stage a", "stage b"),
    ),
    "a stage twice": ("stages:\n  a: {cmd: x}\n  a: {cmd: y}\n", ("'a'", "line 2", "line 3")),
}


def _graph(text: str, told: tuple[str, ...], folder: Path) -> None:
    path = folder / "dvc.yaml"
    path.write_text(text, encoding="utf-8")
    refused(lambda: parsed(path), str(path), *told)


def cases() -> Iterator[Case]:
    """Give the cases of this part."""
    for name, (text, told) in TEXTS.items():
        yield Case(f"yaml: {name}", partial(_text, text, told), "high", seconds=30)
    for tag in TAGS:
        severity = "critical" if "python" in tag else "medium"
        text = f"suite: mini\na: {tag}\n"
        yield Case(f"yaml: tag {tag}", partial(_text, text, ("line 2", "tag", "remove")), severity)
    yield Case("yaml: numbers that readers take for different ones", _numbers)
    yield Case("yaml: values that are the same to DVC", _agree)
    yield Case("yaml: the shipped files are the same to DVC", _like_dvc)
    for name, (content, told) in BYTES.items():
        yield Case(f"yaml: {name}", partial(_bytes, content, told), "high", seconds=30)
    for kind, (make, told) in KINDS.items():
        for reader in READERS:
            run = partial(_kind, make, told, reader)
            yield Case(f"yaml: {kind} for {reader}", run, "high", seconds=20)
    yield Case("yaml: a file without permission", _no_permission)
    for name, (text, told) in GRAPHS.items():
        yield Case(f"dvc.yaml: {name}", partial(_graph, text, told), seconds=20)
