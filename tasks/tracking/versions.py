"""Versions of a registered model as they are read, and the tags that the pipeline gives them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from mlflow.entities.model_registry import ModelVersion

from tasks.tracking.judgement import Measures
from tasks.tracking.run_page import TAG

CONTENT, MD5, PATH = TAG + "content", TAG + "md5", TAG + "path"
METHOD, SEED, RUN, RUN_NAME = (TAG + n for n in ("method", "seed", "run", "run_name"))
HELD_OUT, AVERAGE, IMAGES = TAG + "held_out", TAG + "held_out.average", TAG + "test_images"
UNLOADABLE, JUDGEMENT, SETTLED = (TAG + n for n in ("unloadable", "judgement", "settled"))
BY_HAND = TAG + "by_hand"
CHAMPIONS = TAG + "champions"
"""Of the registered model: the numbers of its champions so far, the last is the present one."""


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

    def fact(self, name: str) -> str:
        """Read what the pipeline noted under `name`; empty where it noted nothing."""
        return self.tags.get(TAG + name, "")

    @property
    def measures(self) -> Measures:
        accuracies = json.loads(self.tags.get(HELD_OUT, "{}"))
        return Measures(self.number, accuracies, self.tags.get(IMAGES, ""))

    @property
    def reason(self) -> str:
        """Why it is champion or is not, in a line: the last that was decided of it."""
        if by_hand := self.tags.get(BY_HAND):
            return by_hand
        if fault := self.tags.get(UNLOADABLE):
            return fault
        judged = json.loads(self.tags.get(JUDGEMENT, "{}"))
        verb = "became champion" if judged.get("moves") else "not champion"
        return f"{verb}: {judged['why']}" if judged else ""
