"""Opening what the model stages share: encoder, heads, prepared images, task vectors."""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from adamerge_core import checkpoints
from adamerge_core.errors import InputError
from adamerge_core.files import atomic_write
from adamerge_core.task_vectors import TaskVectors
from adamerge_core.vision.encoders import create_clip, image_encoder
from adamerge_core.vision.heads import ZeroShotHead
from adamerge_core.vision.images import LabeledImages
from adamerge_core.vision.training import TrainingSettings
from tasks.files import Files
from tasks.suite import Compute, Finetune, Suite


def set_up(compute: Compute) -> torch.device:
    """Fix the threads of this process; the device to compute on.

    Raises InputError when a CUDA device is asked for and there is none.
    """
    torch.set_num_threads(compute.threads)
    if compute.device == "cuda" and not torch.cuda.is_available():
        raise InputError("compute.device = 'cuda': no CUDA device is here; set it to cpu")
    return torch.device(compute.device)


def open_encoder(suite: Suite) -> nn.Module:
    """The suite's image encoder on the suite's device; its weights are still random."""
    device = set_up(suite.compute)
    torch.manual_seed(0)
    return image_encoder(create_clip(suite.model.architecture), suite.model.architecture).to(device)


def load_weights(encoder: nn.Module, path: Path) -> None:
    """Put a checkpoint into the encoder. Raises InputError listing all tensors that do not fit."""
    state = checkpoints.load(path)
    checkpoints.check_same_architecture(encoder.state_dict(), {str(path): state})
    encoder.load_state_dict(state)


def open_heads(suite: Suite, task_names: Iterable[str]) -> dict[str, nn.Module]:
    """The frozen zero-shot head of each task. Raises InputError if one is missing."""
    path = Files(suite.name).heads
    weights = checkpoints.load(path)
    missing = [f"task {name} has no head" for name in task_names if name not in weights]
    if missing:
        raise InputError.listing(f"{path}; make it again with `dvc repro pretrain`", missing)
    return {name: ZeroShotHead(weights[name]).to(suite.compute.device) for name in task_names}


def open_split(files: Files, task_names: Iterable[str], split: str) -> dict[str, LabeledImages]:
    """One split of each task, memory-mapped."""
    return {
        name: LabeledImages.open(files.images(name, split), files.labels(name, split))
        for name in task_names
    }


def open_task_vectors(files: Files, task_names: Sequence[str], seed: int) -> TaskVectors:
    """The task vectors of some tasks over the pretrained encoder."""
    paths = {name: files.task_vector(name, seed) for name in task_names}
    return TaskVectors.load(checkpoints.load(files.pretrained), paths)


def finetune_settings(settings: Finetune, steps: int | None = None) -> TrainingSettings:
    """Training settings of the section finetune, with another number of steps if given."""
    values = settings.model_dump()
    return TrainingSettings(**(values | {"steps": steps or settings.steps}))


def write_json(path: Path, content: Any) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def write_csv(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Rows with one set of columns; numbers with six significant digits, None as an empty cell."""
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)


def _cell(value: object) -> object:
    return f"{value:.6g}" if isinstance(value, float) else value


class ResumableRows:
    """Rows of a curve that survive a kill: one JSON line each in the scratch folder."""

    def __init__(self, scratch: Path | None, name: str) -> None:
        self._file = scratch / f"{name}.jsonl" if scratch else None
        self._rows: list[dict[str, Any]] | None = None

    def append(self, row: dict[str, Any]) -> None:
        """Add the row of a step (key `step`); drops kept rows of that step and later ones."""
        if self._rows is None:
            self._rows = [kept for kept in self._kept() if kept["step"] < row["step"]]
            self._rewrite()
        self._rows.append(row)
        if self._file:
            with self._file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")

    @property
    def rows(self) -> list[dict[str, Any]]:
        return self._rows or []

    def _kept(self) -> list[dict[str, Any]]:
        if not self._file or not self._file.exists():
            return []
        lines = self._file.read_text(encoding="utf-8").splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def _rewrite(self) -> None:
        if self._file:
            with atomic_write(self._file) as temporary:
                text = "".join(json.dumps(row) + "\n" for row in self.rows)
                temporary.write_text(text, encoding="utf-8")
