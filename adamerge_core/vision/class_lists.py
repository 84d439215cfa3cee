"""Class names of a task, in the order of its labels. Nothing here imports torch."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path

from adamerge_core.errors import InputError
from adamerge_core.regular_files import open_regular
from adamerge_core.vision.datasets.published import published_dataset, published_names
from adamerge_core.vision.names import class_name_faults, printable

TEMPLATE = "a photo of a {}."
"""The prompt where none is given."""

_MOST_BYTES = 2**22


@dataclass(frozen=True)
class ClassList:
    """The classes of a task, and the prompts of its zero-shot head."""

    names: tuple[str, ...]
    """Words for a prompt, in the order of the labels."""
    folders: tuple[str, ...]
    """What the folder of each class is called."""
    templates: tuple[str, ...] = (TEMPLATE,)
    """With {} for the class name."""
    source: str = ""
    """Where the names are from, for messages."""

    def facts(self) -> dict[str, tuple[str, ...]]:
        """Describe the list as JSON, for the metadata of a file (see stated_classes)."""
        return {"classes": self.names, "folders": self.folders, "templates": self.templates}

    def label(self, folder: str) -> int | None:
        """Find the label of a folder, by the name of the folder or of the class."""
        for names in (self.folders, self.names):
            if folder in names:
                return names.index(folder)
        return None


def classes_of_folders(folders: tuple[str, ...], source: str) -> ClassList:
    """Take the names of class folders, sorted, for the class names.

    Raises InputError listing those that are no class names.
    """
    return checked_classes(ClassList(folders, folders, source=source))


def read_classes(source: str) -> ClassList:
    """Read class names: a text file with one a line, a JSON list, or a name of the catalogue.

    A line is a class name, or the name of its folder, a tab and the class name. Raises InputError
    when there is no such file or data set, and listing what is wrong with the names.
    """
    if not Path(source).is_file() and source in published_names():
        published = published_dataset(source)
        names, templates = published.classes, published.templates
        return ClassList(names, names, templates, f"the catalogue's {source}")
    text = _text(source)
    rows = _json_rows(source, text) if Path(source).suffix == ".json" else text.splitlines()
    pairs = [row.split("\t", 1) for row in rows if row.strip()]
    if not pairs:
        raise InputError(f"class list {source}: holds no class name; give one a line")
    return checked_classes(
        ClassList(
            tuple(pair[-1].strip() for pair in pairs),
            tuple(pair[0].strip() for pair in pairs),
            source=source,
        )
    )


def read_templates(source: str) -> tuple[str, ...]:
    """Read prompts, one a line, each with {} for the class name.

    Raises InputError when there is no such file, and listing the lines that are no prompts.
    """
    templates = tuple(line for line in _text(source).splitlines() if line.strip())
    faults = [
        f"{line!r}: must hold {{}} once, for the class name, and no other brace"
        for line in templates
        if line.count("{}") != 1 or re.search("[{}]", line.replace("{}", ""))
    ]
    if faults or not templates:
        raise InputError.listing(
            f"prompts {source}", faults or ["the file holds none; give one a line"]
        )
    return templates


def with_templates(classes: ClassList, source: str | None) -> ClassList:
    """Replace the prompts of a class list by those of a file, if one is given."""
    return replace(classes, templates=read_templates(source)) if source else classes


def stated_classes(path: str | os.PathLike[str], entry: str) -> ClassList:
    """Read the class list that `ClassList.facts` gave, from the entry `head` of a file's metadata.

    Raises InputError when it is broken.
    """
    try:
        facts = json.loads(entry)
        lists = [tuple(map(str, facts[key])) for key in ("classes", "folders", "templates")]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise InputError(f"head {path}: its entry `head` is broken; make it again") from error
    if len(lists[0]) != len(lists[1]):
        raise InputError(f"head {path}: has {len(lists[0])} classes and {len(lists[1])} folders")
    return ClassList(lists[0], lists[1], lists[2], f"the head's file {Path(path).name}")


def check_same_classes(classes: Mapping[str, Sequence[str]], subject: str) -> None:
    """Raise InputError about `subject`, listing whose class names are not those of the first.

    classes: by whose they are, as tasks, in the order of the labels. A line shows the first
    difference of one.
    """
    (first, wanted), *others = classes.items()
    faults = []
    for task, names in others:
        pairs = enumerate(zip_longest(wanted, names))
        differing = next(((at, a, b) for at, (a, b) in pairs if a != b), None)
        if differing:
            at, one, other = differing
            faults.append(f"class {at} is {_shown(one)} in {first} and {_shown(other)} in {task}")
    if faults:
        faults.append("fix: give all of them the same class names in the same order")
        raise InputError.listing(subject, faults, shown=20)


def _shown(name: str | None) -> str:
    return "missing" if name is None else repr(printable(name))


def numbered(count: int, source: str) -> ClassList:
    """Name classes by their labels, 0, 1, …, where nothing says what they are called."""
    names = tuple(map(str, range(count)))
    return ClassList(names, names, source=source)


def checked_classes(classes: ClassList) -> ClassList:
    """Return a class list. Raises InputError listing names that are none, or stand twice."""
    faults = class_name_faults(classes.names)
    for kind, names in (("class", classes.names), ("folder", classes.folders)):
        faults += [
            f"{kind} {printable(name)!r}: stands twice; each class needs its own"
            for name in sorted({name for name in names if names.count(name) > 1})
        ]
    if faults:
        raise InputError.listing(f"class list {classes.source}", faults, shown=20)
    return classes


def _text(source: str) -> str:
    subject = "file of names"
    with open_regular(source, subject) as file:
        content = file.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise InputError(f"{subject} {source}: must have at most {_MOST_BYTES} bytes")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{subject} {source}: is not UTF-8; save it as such") from error


def _json_rows(source: str, text: str) -> list[str]:
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"class list {source}: is no JSON ({str(error)[:100]})") from error
    if not isinstance(rows, list) or not all(isinstance(row, str) for row in rows):
        raise InputError(f"class list {source}: must be a JSON list of texts")
    return rows
