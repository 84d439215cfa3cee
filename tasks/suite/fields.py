"""What the sections of a suite are made of.

A section has no defaults: params.yaml says everything, so that no change of a default here can
leave a result behind that it would have changed.
"""

import re
import reprlib
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from adamerge_core.errors import InputError

MANY = 200
"""As many as a list or a section of a suite may hold."""

_SHOWN = 50  # faults told of a suite

# several names stand in one file name, which takes 255 characters
_NAME = re.compile("[a-z0-9][a-z0-9_]{0,49}")
_LABEL = re.compile("[a-z0-9][a-z0-9_-]{0,49}")
NAME_RULE, _LABEL_RULE = (
    f"a name has {characters} only, begins with a letter or digit and has at most 50 characters; "
    "give it such a name"
    for characters in ("a-z, 0-9 and _", "a-z, 0-9, _ and -")
)


def is_name(text: str) -> bool:
    """Tell whether a task, a dataset or a method may be called so."""
    return _NAME.fullmatch(text) is not None


def _checked_name(text: str) -> str:
    if not is_name(text):
        raise ValueError(NAME_RULE)
    return text


def _checked_label(text: str) -> str:
    if not _LABEL.fullmatch(text):
        raise ValueError(_LABEL_RULE)
    return text


Name = Annotated[str, Field(strict=True), AfterValidator(_checked_name)]
"""Of a task, a dataset or a method: it is part of names of files, stages and columns."""
Label = Annotated[str, Field(strict=True), AfterValidator(_checked_label)]
"""Of a suite or a model."""

Steps = Annotated[int, Field(ge=1, le=10**8, strict=True)]
NoSteps = Annotated[int, Field(ge=0, le=10**8, strict=True)]
"""Steps, or none."""
Images = Annotated[int, Field(ge=1, le=10**7, strict=True)]
"""How many of them."""
Rate = Annotated[float, Field(ge=1e-12, le=1e3, strict=True, allow_inf_nan=False)]
"""Of learning: float32 keeps it and its square."""
Decay = Annotated[float, Field(ge=0, le=1e3, strict=True, allow_inf_nan=False)]
Points = Annotated[float, Field(ge=0, le=100, strict=True, allow_inf_nan=False)]
"""Of accuracy in percent."""
Seed = Annotated[int, Field(ge=0, le=2**32 - 1, strict=True)]
"""NumPy's older generators take no more."""

REFERENCES = ("pretrained", "individual", "traditional_mtl")
"""Rows of every table that merge nothing."""


def one_of(known: Callable[[], Iterable[str]]) -> AfterValidator:
    """Accept a name that is among `known`, which is read when one is checked."""

    def check(name: str) -> str:
        listed = list(known())
        if name not in listed:
            raise ValueError(f"must be one of {', '.join(listed)}")
        return name

    return AfterValidator(check)


class Section(BaseModel):
    """A section of params.yaml: unknown keys are faults."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)

    key: ClassVar[str]
    """Its name in params.yaml, dotted where it lies in another section."""

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Self:
        """Read the section from the parameters of a stage, all of it.

        Raises InputError listing every fault.
        """
        section: Any = params
        for key in cls.key.split("."):
            section = section[key]
        try:
            return cls.model_validate(section)
        except ValidationError as error:
            raise listing("params.yaml", lines_of(error, f"{cls.key}.")) from error


_RULES = {
    "greater_than": "must be above {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than": "must be below {lt:g}",
    "less_than_equal": "must be at most {le:g}",
    "too_short": "must have at least {min_length}",
    "too_long": "must have at most {max_length}",
    "string_type": "must be text; put it in quotes if it is meant so",
}
"""What pydantic says at length, by its type of fault."""


def lines_of(error: ValidationError, prefix: str = "") -> list[str]:
    """Write one line a fault, with `prefix` before it: key = value, the rule."""
    lines = []
    for fault in error.errors():
        key = prefix + ".".join(map(written, fault["loc"]))
        if fault["type"] in _RULES:
            message = _RULES[fault["type"]].format(**fault.get("ctx", {}))
        else:
            message = fault["msg"].removeprefix("Value error, ").replace("Input should", "must")
        if fault["type"] == "missing":
            lines.append(f"{key}: is missing")
        elif fault["type"] == "extra_forbidden":
            lines.append(f"{key}: is no parameter; remove it or mend its spelling")
        else:
            lines.append(f"{key} = {shown(fault['input'])}: {message}")
    return lines


_VALUES = reprlib.Repr()
_VALUES.maxstring = _VALUES.maxother = 100
_VALUES.maxlist = _VALUES.maxtuple = _VALUES.maxdict = 20
_VALUES.maxlevel = 4


def shown(value: Any) -> str:
    """Write a value of the user's for a message, cut where it is long."""
    return _VALUES.repr(value)


def written(key: Any) -> str:
    """Write a key of the user's for a message: as it is where it is plain."""
    text = str(key)
    return text if re.fullmatch(r"[\w\[\] .-]{0,100}", text) else shown(text)


def listing(subject: str, faults: list[str]) -> InputError:
    """Make one error of a suite's faults; of very many the first are told."""
    return InputError.listing(subject, faults, shown=_SHOWN)
