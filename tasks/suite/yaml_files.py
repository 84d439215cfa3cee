"""YAML files as plain values, read strictly, and where the active suite's parameters are.

The one reader of the project's YAML. It gives what YAML 1.2 says, which DVC reads too, and refuses
what readers take for different things (017, 1_000, 2020-01-01), what would be lost (a key that
stands twice), and what is larger than any file of a project.
"""

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import yaml

from adamerge_core.errors import InputError
from adamerge_core.regular_files import open_regular

PARAMS_YAML = Path("params.yaml")

# libyaml's is ten times as fast, and every stage process reads params.yaml and dvc.yaml
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_BYTES, _DEPTH, _NODES = 2**24, 30, 2**20
"""Bounds of a file: a dvc.lock of ten thousand stages is within them."""
_FROM_ALIASES = 10_000
"""Nodes that aliases may repeat."""
_DIGITS = 100
_SHOWN = 20  # faults told of a file

_WORDS: Mapping[str, Any] = MappingProxyType(
    {"": None, "~": None}
    | dict.fromkeys(("null", "Null", "NULL"))
    | dict.fromkeys(("true", "True", "TRUE"), True)
    | dict.fromkeys(("false", "False", "FALSE"), False)
    | dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), float("inf"))
    | dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf"))
    | dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan"))
)
_INT = re.compile(r"0|[-+]?[1-9][0-9]*")
_FLOAT = re.compile(r"[-+]?(?:[0-9]+\.[0-9]*|[0-9]+(?=[eE])|\.[0-9]+$)(?:[eE][-+]?[0-9]+)?")
# beyond these two, what some reader takes for a number, a date or a command: DVC's, or YAML 1.1's
_NUMBERLIKE = re.compile(
    r"""[-+]?0b[01_]+ | [-+]?0o?[0-7_]+ | [-+]?[0-9_]+ | [-+]?0x[0-9a-fA-F_]+
    | [-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)? | [-+]?[0-9][0-9_]*[eE][-+]?[0-9]+
    | [-+]?\.[0-9_]+(?:[eE][-+][0-9]+)?""",
    re.VERBOSE,
)
_DATE = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[Tt]|[ \t]+)[0-9]{1,2}:.*"
)
# control characters but tab and newline, other line ends, the byte order mark, no characters
_BARRED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff\ud800-\udfff]")


def load_yaml(path: Path) -> Any:
    """Read a YAML file as dicts with text keys, lists, text, numbers, booleans and None.

    Raises InputError listing its faults with their lines, or saying why it cannot be read.
    """
    return parse_yaml(read_text(path), path)


def read_text(path: Path) -> str:
    """Read a YAML file's text, with the line ends of Unix.

    Raises InputError where it is missing, no regular file, too large, or not UTF-8.
    """
    with io.BufferedReader(cast(io.RawIOBase, open_regular(path, "file"))) as file:
        content = file.read(_BYTES + 1)
    if len(content) > _BYTES:
        raise InputError(
            f"{path}: must have at most {_BYTES // 2**20} MB; no YAML file of a project has more"
        )
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: not readable as YAML ({error}); save it as text in UTF-8"
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def parse_yaml(text: str, path: Path) -> Any:
    """Parse the text of the file `path`; see load_yaml. Raises InputError listing its faults."""
    reading = _Reading()
    reading.look_at_characters(text)
    if not reading.faults:
        try:
            for event in yaml.parse(text, _Loader):
                reading.take(event)
        except _TooLargeError as error:
            reading.faults.append(str(error))
        except yaml.YAMLError as error:
            reading.faults.append(_where(error))
    if reading.faults:
        raise InputError.listing(str(path), reading.faults, shown=_SHOWN)
    return reading.document


class _TooLargeError(Exception):
    """A file is beyond a bound: reading ends there."""


@dataclass(slots=True)
class _Open:
    """A mapping or a list that is being read."""

    value: dict[str, Any] | list[Any]
    anchor: str | None
    nodes: int = 1
    lines: dict[str, int] = field(default_factory=dict)
    """Of its keys."""
    key: str | None = None
    """Whose value comes next."""


class _Reading:
    """Builds the values of one file from libyaml's events, without recursion."""

    def __init__(self) -> None:
        self.document: Any = None
        self.faults: list[str] = []
        self._open: list[_Open] = []
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._nodes = self._repeated = self._documents = 0

    def look_at_characters(self, text: str) -> None:
        """List what may not stand in the text."""
        for number, line in enumerate(text.split("\n"), 1) if _BARRED.search(text) else ():
            self.faults += [
                f"line {number}: holds the character U+{ord(found):04X}; remove it"
                for found in dict.fromkeys(_BARRED.findall(line))
            ]

    def take(self, event: Any) -> None:
        """Go on by an event."""
        line = event.start_mark.line + 1
        if isinstance(event, yaml.ScalarEvent):
            self._count(line)
            self._place(self._scalar(event, line), 1, event.anchor, line)
        elif isinstance(event, yaml.AliasEvent):
            self._alias(event.anchor, line)
        elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            self._begin(event, line)
        elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            ended = self._open.pop()
            self._place(ended.value, ended.nodes, ended.anchor, line)
        elif isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                raise _TooLargeError(f"line {line}: a second document begins; keep one")
            if event.version or event.tags:
                self.faults.append(f"line {line}: begins with a directive (%); remove it")

    def _begin(self, event: Any, line: int) -> None:
        self._count(line)
        if len(self._open) >= _DEPTH:
            raise _TooLargeError(f"line {line}: nested deeper than {_DEPTH} levels; mend it")
        self._refuse_tag(event.tag, line)
        value: dict[str, Any] | list[Any] = [] if isinstance(event, yaml.SequenceStartEvent) else {}
        self._open.append(_Open(value, event.anchor))

    def _count(self, line: int) -> None:
        self._nodes += 1
        if self._nodes > _NODES:
            raise _TooLargeError(
                f"line {line}: more than {_NODES} values; no file here has so many"
            )

    def _alias(self, anchor: Any, line: int) -> None:
        if anchor not in self._anchors:
            self.faults.append(f"line {line}: *{anchor} refers to nothing that ends before it")
            self._place(None, 1, None, line)
            return
        value, nodes = self._anchors[anchor]
        self._repeated += nodes
        if self._repeated > _FROM_ALIASES:
            raise _TooLargeError(
                f"line {line}: *{anchor} and the aliases before it repeat more than "
                f"{_FROM_ALIASES} values; write out what is meant"
            )
        self._place(value, nodes, None, line)

    def _place(self, value: Any, nodes: int, anchor: str | None, line: int) -> None:
        """Put a value, of so many nodes, where it belongs: the document, a list, a mapping."""
        if anchor is not None:
            self._anchors[anchor] = value, nodes
        if not self._open:
            self.document = value
            return
        above = self._open[-1]
        above.nodes += nodes
        if isinstance(above.value, list):
            above.value.append(value)
        elif above.key is None:
            above.key = self._key(above, value, line)
        else:
            above.value[above.key] = value
            above.key = None

    def _key(self, above: _Open, key: Any, line: int) -> str:
        if not isinstance(key, str):
            said = repr(key) if not isinstance(key, dict | list) else "that is no text"
            self.faults.append(
                f"line {line}: YAML reads the key {said}, which is no text; put it in quotes"
            )
            return repr(line)
        if "\n" in key or "\t" in key:
            self.faults.append(f"line {line}: the key {_short(key)} has several lines; mend it")
        if key in above.lines:
            self.faults.append(
                f"line {line}: the key {_short(key)} stands in line {above.lines[key]} too; "
                "remove one of the two"
            )
        above.lines[key] = line
        return key

    def _scalar(self, event: Any, line: int) -> Any:
        text: str = event.value
        self._refuse_tag(event.tag, line)
        if event.style:  # in quotes, or a block
            if event.style == '"' and (found := _BARRED.search(text)):
                self.faults.append(
                    f"line {line}: holds the character U+{ord(found[0]):04X}; remove it"
                )
            return text
        if text in _WORDS:
            return _WORDS[text]
        if text[0] in "+-.0123456789<=":
            return self._number(text, line)
        return text

    def _number(self, text: str, line: int) -> Any:
        is_int = _INT.fullmatch(text)
        if not is_int and not _FLOAT.fullmatch(text):
            if text == "<<":
                self.faults.append(f"line {line}: merge keys (<<) are not read; write the keys out")
            elif text == "=" or _NUMBERLIKE.fullmatch(text) or _DATE.fullmatch(text):
                self.faults.append(
                    f"line {line}: {_short(text)} is not the same to all readers of YAML; put it "
                    "in quotes if it is text, or write a number as 12, 0.5 or 1.0e-3"
                )
            return text
        if len(text) > _DIGITS:
            self.faults.append(
                f"line {line}: a number of {len(text)} digits; it must have at most {_DIGITS}"
            )
            return 0
        value = int(text) if is_int else float(text)
        if value in (float("inf"), float("-inf")):
            self.faults.append(f"line {line}: {text} is beyond what a number can be")
        if value == 0 and text[0] == "-":
            self.faults.append(f"line {line}: {text} has a sign that is lost; write 0")
        return value

    def _refuse_tag(self, tag: str | None, line: int) -> None:
        if tag is not None:
            self.faults.append(
                f"line {line}: has the tag {_short(tag)}; tags are not read, remove it"
            )


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:60]}...")


def _where(error: yaml.YAMLError) -> str:
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    return f"{place}not readable as YAML ({problem or error}); mend the file"
