"""The events of a journal that are what they should be; others are damage, and passed over.

A journal lies on a disk for as long as MLflow cannot be reached: whatever is in it is checked here,
so that what reads an event need not.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from tasks.running import journal

_Moment = Annotated[float, Field(ge=0, lt=1e11, allow_inf_nan=False)]  # seconds since 1970
_Md5s = dict[str, str]
_Step = Annotated[int, Field(ge=-(2**63), lt=2**63)]  # MLflow's database has 64 bits


class _Event(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")
    time: _Moment


class _Start(_Event):
    event: Literal["start"]
    run: Annotated[str, Field(min_length=1)]
    pid: int
    pid_started: str | None
    host: str
    user: str
    suite: str
    cmd: str
    params: dict[str, Any]
    commit: str | None
    dirty: bool


class _StageStart(_Start):
    kind: Literal["stage"]
    stage: str
    deps: _Md5s
    pipeline: Annotated[str, Field(pattern=r"^[\w.-]+$")]  # names a file
    owner_pid: int = 0
    owner_started: str | None = None
    owner_cmd: str = ""


class _GraphStage(BaseModel):
    model_config = ConfigDict(strict=True)
    phase: str
    above: list[str]


class _PipelineStart(_Start):
    kind: Literal["pipeline"]
    name: str
    adopted: bool = False
    graph: dict[str, _GraphStage] | None = None
    reason: str = ""


class _Cached(_Event):
    event: Literal["cached"]
    stage: str
    signature: str
    outs: _Md5s


class _End(_Event):
    event: Literal["end"]
    status: Literal["FINISHED", "FAILED", "KILLED"]
    error: str = ""
    outs: _Md5s = {}
    signature: str = ""
    counts: dict[str, int] = {}


class _Point(BaseModel):
    model_config = ConfigDict(strict=True)
    step: _Step
    time: _Moment
    values: dict[str, float]


class _Metrics(BaseModel):
    event: Literal["metrics"]
    points: list[_Point]


_STARTS: TypeAdapter[Any] = TypeAdapter(
    Annotated[_StageStart | _PipelineStart, Field(discriminator="kind")]
)
_LATER: TypeAdapter[Any] = TypeAdapter(
    Annotated[_Cached | _End | _Metrics, Field(discriminator="event")]
)


def start_of(path: Path) -> dict[str, Any] | None:
    """Read a journal's first line; None where that is no start of a run."""
    event = journal.first(path)
    return event if event is not None and _fits(_STARTS, event) else None


def later(path: Path, offset: int) -> tuple[list[dict[str, Any]], int]:
    """Read the events of a journal behind its start, from byte `offset` on, as journal.read."""
    events, behind = journal.read(path, offset)
    return [event for event in events if _fits(_LATER, event)], behind


def _fits(form: TypeAdapter[Any], event: Mapping[str, Any]) -> bool:
    try:
        form.validate_python(event)
    except ValidationError:
        return False
    return True
