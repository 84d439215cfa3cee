"""What the sections of a suite are made of.

A section has no defaults: params.yaml says everything, so that no change of a default here can
leave a result behind that it would have changed.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Name = Annotated[str, Field(pattern=r"^[a-z0-9_]+$", strict=True)]
"""Of a task, a dataset or a method."""
Label = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", strict=True)]
"""Of a suite or a model."""
Count = Annotated[int, Field(ge=1, strict=True)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, strict=True)]


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
        """Read the section from the parameters of a stage, all of it."""
        return cls.model_validate(params[cls.key])
