"""What the sections of a suite are made of."""

from collections.abc import Callable, Iterable
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Name = Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
Count = Annotated[int, Field(ge=1, strict=True)]
Share = Annotated[float, Field(gt=0, le=1)]
Coefficient = Annotated[float, Field(ge=0, le=1)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, strict=True)]
Scalings = Annotated[tuple[Positive, ...], Field(min_length=1)]


def one_of(known: Callable[[], Iterable[str]]) -> AfterValidator:
    """A name must be among `known`, which is read when one is checked."""

    def check(name: str) -> str:
        listed = list(known())
        if name not in listed:
            raise ValueError(f"must be one of {', '.join(listed)}")
        return name

    return AfterValidator(check)


class Section(BaseModel):
    """A section of params.yaml: unknown keys are faults."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)
