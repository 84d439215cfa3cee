"""What the sections of a suite are made of.

A section has no defaults: params.yaml says everything, so that no change of a default here can
leave a result behind that it would have changed.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from adamerge_core.errors import InputError

Name = Annotated[str, Field(pattern=r"^[a-z0-9_]+$", strict=True)]
"""Of a task, a dataset or a method."""
Label = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", strict=True)]
"""Of a suite or a model."""
Count = Annotated[int, Field(ge=1, strict=True)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, strict=True)]

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
    """Its name in params.yaml."""

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Self:
        """Read the section from the parameters of a stage, all of it.

        Raises InputError listing every fault.
        """
        try:
            return cls.model_validate(params[cls.key])
        except ValidationError as error:
            raise InputError.listing("params.yaml", lines_of(error, f"{cls.key}.")) from error


def lines_of(error: ValidationError, prefix: str = "") -> list[str]:
    """Write one line a fault, with `prefix` before it: key = value, the rule."""
    lines = []
    for fault in error.errors():
        key = prefix + ".".join(map(str, fault["loc"]))
        message = fault["msg"].removeprefix("Value error, ")
        if fault["type"] == "missing":
            lines.append(f"{key}: is missing")
        elif fault["type"] == "extra_forbidden":
            lines.append(f"{key}: is no parameter; remove it or mend its spelling")
        else:
            lines.append(f"{key} = {fault['input']!r}: {message}")
    return lines
