"""A merge carried out: the merged image tower in a folder, with all that goes with it."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from adamerge_core.adamerging.engine import Engine
from adamerge_core.adamerging.learned import coefficients_of, merged_by
from adamerge_core.checkpoints import StateDict
from adamerge_core.coefficient_files import LearnedCoefficients
from adamerge_core.errors import InputError
from adamerge_core.evaluation import correct, percent, with_average
from adamerge_core.method_choice import MethodChoice
from adamerge_core.statistics import fisher_diagonal, gram_matrices
from adamerge_core.task_vectors import TaskVectors
from adamerge_core.vision.choice import Judge, choose
from adamerge_core.vision.class_lists import ClassList
from adamerge_core.vision.image_files import Progress, decode_into
from adamerge_core.vision.images import LabeledImages
from adamerge_core.vision.known_models import input_size
from adamerge_core.vision.merge_recipes import MergeInputs, MergeRecipe, open_inputs
from adamerge_core.vision.merged_folders import write_merged_folder
from adamerge_core.vision.merged_models import MergedModel
from adamerge_core.vision.pretrained import encoder_of, scaling_of, whole_clip
from adamerge_core.vision.task_heads import TaskHead, zero_shot_head
from adamerge_core.vision.work_folders import put_in_place, taken_fault, work_folder

STATISTICS_IMAGES = 256
"""Images of a task, at most, that a statistic of its model is computed from."""


def merge_models(
    recipe: MergeRecipe,
    out: str | Path,
    device: str = "cpu",
    progress: Progress | None = None,
) -> MergedModel:
    """Merge as a recipe says, and write the folder `out` (see write_merged_folder).

    Interrupted work is in `<out>.partial`, and the same call goes on from it. progress: is told
    (done, of how many, of what). Raises InputError listing what is wrong with the recipe and the
    files that it names, and where something is at `out` already.
    """
    fault = taken_fault(Path(out))
    if fault:
        raise InputError(fault)
    return merge_inputs(open_inputs(recipe), Path(out), device, progress or (lambda *_: None))


def merge_inputs(inputs: MergeInputs, out: Path, device: str, progress: Progress) -> MergedModel:
    """Do what merge_models does, with a recipe's files read already."""
    with work_folder(out, inputs.identity()) as folder:
        work = _Work(inputs, folder, torch.device(device), progress)
        merged = work.merged()
        made = folder / "made"
        shutil.rmtree(made, ignore_errors=True)
        write_merged_folder(made, inputs, merged)
        put_in_place(made, out)
    return merged


@dataclass(frozen=True)
class _Made:
    """What a method made."""

    method: MethodChoice
    model: StateDict
    coefficients: LearnedCoefficients | None = None


class _Work:
    """One merge at work in its folder."""

    def __init__(
        self, inputs: MergeInputs, folder: Path, device: torch.device, progress: Progress
    ) -> None:
        self.inputs, self.folder, self.device, self.progress = inputs, folder, device, progress
        self.recipe, self.method = inputs.recipe, inputs.method
        self.heads = _made_heads(inputs)
        self.modules: dict[str, nn.Module] = {
            name: head.module().to(device) for name, head in self.heads.items()
        }
        size = input_size(self.recipe.architecture)
        self.images = {
            name: decode_into(folder / f"{name}.npy", task.images, size, progress)
            for name, task in inputs.tasks.items()
            if task.images
        }
        self.labels = {n: t.labels for n, t in inputs.tasks.items() if t.labels is not None}

    @cached_property
    def encoder(self) -> nn.Module:
        """The image encoder, made where images pass through it."""
        architecture, pretrained = self.recipe.architecture, self.recipe.pretrained
        pixels = scaling_of(architecture, pretrained)
        tensors = self.inputs.pretrained.tensors
        return encoder_of(architecture, tensors, pretrained, pixels).to(self.device)

    def merged(self) -> MergedModel:
        """Merge, and measure where labels are known."""
        finetuned = {name: dict(task.tower.tensors) for name, task in self.inputs.tasks.items()}
        pretrained = {n: t.to(self.device) for n, t in self.inputs.pretrained.tensors.items()}
        vectors = TaskVectors.from_checkpoints(pretrained, finetuned)
        made, rows = self._chosen(vectors)
        accuracies = self._measured(made.model)
        on_cpu = {name: tensor.cpu() for name, tensor in made.model.items()}
        return MergedModel(
            on_cpu, self.heads, made.method, made.coefficients, accuracies, tuple(rows)
        )

    def _chosen(self, vectors: TaskVectors) -> tuple["_Made", list[dict[str, Any]]]:
        """Make the method's model; where a parameter is chosen, the best of all values."""
        options = self.method.choose
        if options is None:
            return self._made(self.method, vectors), []
        data = {
            name: LabeledImages(images, self.labels.get(name, np.zeros(len(images), np.int64)))
            for name, images in self.images.items()
        }
        judge = Judge.prepare(options.by, self.encoder, vectors, self.modules, data)

        def tell(number: int, value: Any, average: float) -> None:
            told = f"values of {options.parameter} tried, {value}: {options.by} {average:.4g}"
            self.progress(number, len(options.values), told)

        def make(number: int, _: Any) -> _Made:
            return self._made(options.methods[number - 1], vectors, f"-{number}")

        choice = choose(options.parameter, options.values, judge, make, tell)
        return choice.best, choice.rows

    def _made(self, method: MethodChoice, vectors: TaskVectors, suffix: str = "") -> "_Made":
        """Make a method's model. suffix: tells its state file from those of other values."""
        if method.settings is None:
            return _Made(method, method.merge(vectors, self._statistic))
        engine = method.engine(self.encoder, vectors, self.modules)
        parameters = self._learned(method, engine, vectors, suffix)
        merged = method.finished(merged_by(engine, parameters), vectors, self._statistic)
        changed = engine.task_vectors
        rows = changed.expand(coefficients_of(engine, parameters)).detach().cpu().double()
        learned = LearnedCoefficients(rows, changed.layer_names, changed.task_names)
        return _Made(method, merged, learned)

    def _learned(
        self, method: MethodChoice, engine: Engine, vectors: TaskVectors, suffix: str
    ) -> Tensor:
        """Learn merging parameters, from the kept state on where there is one."""
        total = method.settings.steps if method.settings else 0
        state = self.folder / f"adaptation{suffix}.safetensors"
        seed, images, labels = self.recipe.seed, self.images, self.labels
        for step in method.learn(engine, vectors, images, labels, seed, state):
            self.progress(step.step, total, f"steps, loss {sum(step.loss.values()):.3f}")
            learned = step.coefficients
        return learned

    def _statistic(self, kind: str, task: str) -> StateDict:
        """Compute a statistic of a fine-tuned model, on some of its images drawn by the seed."""
        images = self.images[task]
        rows = np.random.default_rng(self.recipe.seed).permutation(len(images))
        few = images[np.sort(rows[:STATISTICS_IMAGES])]
        self.encoder.load_state_dict(dict(self.inputs.tasks[task].tower.tensors))
        self.progress(1, 1, f"{kind} of {task}, {len(few)} images")
        if kind == "fisher_diagonal":
            return fisher_diagonal(self.encoder, self.modules[task], few, seed=self.recipe.seed)
        return gram_matrices(self.encoder, few)

    def _measured(self, merged: Mapping[str, Tensor]) -> dict[str, dict[str, float]]:
        """Measure the accuracies of the pretrained, individual and merged models."""
        names = [n for n in self.inputs.tasks if n in self.labels and n in self.modules]
        if not names:
            return {}
        pretrained = self.inputs.pretrained.tensors
        models: dict[str, dict[str, Mapping[str, Tensor]]] = {
            "pretrained": dict.fromkeys(names, pretrained),
            "individual": {name: self.inputs.tasks[name].tower.tensors for name in names},
            "merged": dict.fromkeys(names, merged),
        }
        found, total = {}, len(models) * len(names)
        for number, (model, states) in enumerate(models.items()):
            row = {}
            for index, name in enumerate(names):
                self.encoder.load_state_dict(dict(states[name]))
                hits = correct(
                    self.encoder, self.modules[name], self.images[name], self.labels[name]
                )
                row[name] = percent(hits)
                self.progress(number * len(names) + index + 1, total, "accuracies measured")
            found[model] = with_average(row)
        return found


def _made_heads(inputs: MergeInputs) -> dict[str, TaskHead]:
    """Make the zero-shot heads of tasks that have class names, and take those there are."""
    heads = {n: task.head for n, task in inputs.tasks.items() if isinstance(task.head, TaskHead)}
    lists = {n: task.head for n, task in inputs.tasks.items() if isinstance(task.head, ClassList)}
    if lists and inputs.pretrained.text_tower:
        clip = whole_clip(inputs.recipe.architecture, inputs.pretrained)
        made = {n: zero_shot_head(clip, inputs.recipe.architecture, c) for n, c in lists.items()}
        heads |= made
    return {name: heads[name] for name in inputs.tasks if name in heads}
