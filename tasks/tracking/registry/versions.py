"""Versions of a registered model as they are read, and the tags that the pipeline gives them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from mlflow.entities.model_registry import ModelVersion

from tasks.tracking.pages.run_page import TAG
from tasks.tracking.registry.judgement import Measures

CONTENT, MD5, PATH, METHOD = (TAG + name for name in ("content", "md5", "path", "method"))
AVERAGE = TAG + "held_out.average"
DETAILS, JUDGEMENT, BY_HAND = (TAG + name for name in ("details", "judgement", "by_hand"))
CHAMPIONS = TAG + "champions"
"""Of the registered model: the numbers of its champions so far, the last is the present one."""


@dataclass(frozen=True)
class Details:
    """What else the pipeline notes on a version, in one tag: the registry's list shows them all."""

    content: str
    """A hash of all that the version is made of."""
    seed: int
    held_out: Mapping[str, float]
    """Top-1 in percent, by task and "average"."""
    test_images: str
    """A hash of what it was measured on."""
    run: str
    """Of the pipeline that made it."""
    run_name: str
    unloadable: str
    """Why the version cannot be loaded; empty where it can."""


_OTHERS = Details("", 0, {}, "", "", "", "cannot be loaded: this pipeline did not register it")
"""Of a version that was registered otherwise."""


@dataclass(frozen=True)
class Version:
    """A version of a registered model, as it is read."""

    number: str
    aliases: tuple[str, ...]
    tags: Mapping[str, str]
    description: str
    created_ms: int
    model_id: str
    run_id: str | None

    @classmethod
    def of(cls, found: ModelVersion) -> "Version":
        return cls(
            str(found.version),
            tuple(found.aliases),
            found.tags,
            found.description or "",
            found.creation_timestamp,
            found.model_id or str(found.source).removeprefix("models:/"),
            found.run_id or None,
        )

    @property
    def details(self) -> Details:
        kept = self.tags.get(DETAILS)
        return Details(**json.loads(kept)) if kept else _OTHERS

    @property
    def measures(self) -> Measures:
        """What it is judged by."""
        return Measures(self.number, self.details.held_out, self.details.test_images)

    @property
    def reason(self) -> str:
        """Why it is champion or is not, in a line: the last that was decided of it."""
        if by_hand := self.tags.get(BY_HAND):
            return by_hand
        if fault := self.details.unloadable:
            return fault
        judged = json.loads(self.tags.get(JUDGEMENT, "{}"))
        verb = "became champion" if judged.get("moves") else "not champion"
        return f"{verb}: {judged['why']}" if judged else ""
