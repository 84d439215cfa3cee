"""The registry of formats: what a decorator over the function that reads one adds.

A format is one function in one file of this package, and what tells its files from all others by
their content. No two formats may claim one file.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from adamerge_core.errors import InputError
from adamerge_core.vision.architectures import Activation
from adamerge_core.vision.checkpoint_formats.contents import Content


@dataclass(frozen=True)
class Wanted:
    """What an image tower is read for."""

    architecture: str
    pretrained: Mapping[str, Tensor] | None
    """The pretrained image tower, if there is one."""


@dataclass(frozen=True)
class Found:
    """An image tower as its format gives it, before it is held against an architecture."""

    format: str
    """In words, for the user."""
    tensors: Mapping[str, Tensor]
    """By open_clip's names below `visual.`; each is read once."""
    beside: Mapping[str, Tensor] = field(default_factory=dict)
    """What else the checkpoint holds, the text tower by open_clip's names."""
    activation: Activation | None = None
    """That the tower was trained with, where the checkpoint says it."""
    remarks: tuple[str, ...] = ()
    """What was converted, a line each, for the user."""


Read = Callable[[Content, Wanted], Found]


@dataclass(frozen=True)
class Format:
    """A registered format."""

    name: str
    """In words, for the user."""
    claims: Callable[[Content], bool]
    """Tells by the content whether it is this format's."""
    read: Read
    module: str
    """The dotted name of the module that it stands in."""


FORMATS: dict[str, Format] = {}
"""Formats by name."""


def checkpoint_format(name: str, claims: Callable[[Content], bool]) -> Callable[[Read], Read]:
    """Register a function as the reader of a format, which raises InputError for what is not."""

    def add(read: Read) -> Read:
        if name in FORMATS:
            raise TypeError(f"format {name}: registered twice; give one of the two another name")
        FORMATS[name] = Format(name, claims, read, read.__module__)
        return read

    return add


def format_of(content: Content) -> Format:
    """Find the format of what lies at a source.

    Raises InputError where there is none, with what the content begins with.
    """
    claiming = [each for each in FORMATS.values() if each.claims(content)]
    if len(claiming) > 1:
        names = " and ".join(each.name for each in claiming)
        raise TypeError(f"{content.path}: claimed by {names}; make their claims exclude each other")
    if claiming:
        return claiming[0]
    begins = ", ".join(sorted(content.tensors)[:3]) or "no tensor"
    kind = ""
    if "model_type" in content.config:
        kind = f" (its configuration says model_type = {content.config['model_type']!r})"
    raise InputError(
        f"{content.source}: no image tower of a CLIP was found in it{kind}; its tensors begin with "
        f"{begins}; known formats are {', '.join(FORMATS)}"
    )
