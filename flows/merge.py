"""`adamerge merge`: checkpoints into one, without a suite."""

import argparse
from collections.abc import Mapping
from pathlib import Path

from adamerge_core.vision.architectures import split_name
from adamerge_core.vision.export import is_clip_vit
from adamerge_core.vision.merge_models import merge_inputs
from adamerge_core.vision.merge_recipes import MergeInputs, MergeRecipe, TaskInputs, open_inputs
from adamerge_core.vision.merged_folders import (
    COEFFICIENTS,
    IMAGE_TOWER,
    OPEN_CLIP,
    TRANSFORMERS,
)
from adamerge_core.vision.merged_models import MergedModel
from adamerge_core.vision.plans import Plan, plan_merge, tensor_bytes
from adamerge_core.vision.task_heads import TaskHead
from adamerge_core.vision.work_folders import taken_fault
from flows.model_options import Progress, by_task, choices, device, refuse, settings
from flows.sizes import gb
from tasks.running.durations import clock


def merge(options: argparse.Namespace) -> int:
    """Merge as the options say, or say what that takes."""
    faults: list[str] = []
    recipe = MergeRecipe(
        architecture=options.model,
        pretrained=options.pretrained,
        finetuned=by_task("finetuned", options.finetuned, faults),
        method=options.method,
        settings=settings(options.set, faults),
        choose=choices(options.choose, options.by, faults),
        images=by_task("images", options.images, faults),
        classes=by_task("classes", options.classes, faults),
        templates=by_task("templates", options.templates, faults),
        heads=by_task("heads", options.heads, faults),
        head=options.head,
        seed=options.seed,
    )
    chosen, out = device(options.device, options.threads, faults), Path(options.out)
    if fault := taken_fault(out, "--out"):
        faults.append(fault)
    refuse("merge", faults + recipe.faults())
    inputs = open_inputs(recipe)
    _say_inputs(inputs)
    if options.dry_run:
        _say_plan(inputs, out, plan_merge(inputs, chosen), chosen)
        return 0
    _say_result(merge_inputs(inputs, out, chosen, Progress()), out)
    return 0


def _say_inputs(inputs: MergeInputs) -> None:
    base = inputs.pretrained
    print(f"pretrained  {base.source}: {base.format}, {gb(tensor_bytes(base.tensors))}")
    for remark in base.remarks:
        print(f"            {remark}")
    for name, task in inputs.tasks.items():
        print(f"{name:<11} {task.tower.source}: {task.tower.format}")
        for remark in task.tower.remarks:
            print(f"            {remark}")
        for left_out in task.images.remarks if task.images else ():
            print(f"            {left_out}")
        print(f"            {_head(task)}; {_images(task)}")
    print(f"method      {inputs.recipe.method}", flush=True)


def _head(task: TaskInputs) -> str:
    if isinstance(task.head, TaskHead):
        return f"head: {task.head.kind}, {task.head.source}, {len(task.head.classes.names)} classes"
    if task.head:
        return f"head: zero-shot, of {task.head.source}, {len(task.head.names)} classes"
    return "no head"


def _images(task: TaskInputs) -> str:
    if task.images is None:
        return "no images"
    known = "without labels" if task.labels is None else "labels by their folders"
    return f"{len(task.images.files)} images of {task.images.folder}, {known}"


def _say_plan(inputs: MergeInputs, out: Path, plan: Plan, chosen: str) -> None:
    parts = [IMAGE_TOWER, "heads/", "README.md", "recipe.json"]
    parts += [COEFFICIENTS] if inputs.method.settings else []
    parts += [f"{OPEN_CLIP}/"] if inputs.pretrained.text_tower else []
    parts += [f"{TRANSFORMERS}/"] if is_clip_vit(inputs.recipe.architecture) else []
    library = split_name(inputs.recipe.architecture)
    parts += [f"{library[0]}/"] if library else []
    print(f"writes      {out}/, {gb(plan.written)}: {', '.join(parts)}")
    print(f"            {out}.partial/ until then, {gb(plan.working)}")
    say_plan(plan, chosen)
    if inputs.method.settings is None:
        print("            and what the rule takes, which is not tried")
    print("nothing was written: --dry-run")


def say_plan(plan: Plan, chosen: str) -> None:
    """Print what work takes in memory and time."""
    print(f"memory      about {gb(plan.memory)}, and the activations of up to 64 images")
    if plan.seconds is not None:
        print(f"time        about {clock(plan.seconds)} on {chosen}, by a trial of 8 images")


def _say_result(merged: MergedModel, out: Path) -> None:
    for row in merged.choice:
        (parameter, value), (_, by), *_ = row.items()
        print(f"{parameter} {value}: {by} {row['average']:.4g}")
    if merged.coefficients:
        for name, column in zip(
            merged.coefficients.task_names, merged.coefficients.values.T, strict=True
        ):
            print(
                f"coefficients of {name}: {column.mean():.3f} "
                f"({column.min():.3f} to {column.max():.3f})"
            )
    if merged.accuracies:
        print_accuracies(merged.accuracies)
    print(f"merged into {out}/; {out}/README.md says from what and how")


def print_accuracies(rows: Mapping[str, Mapping[str, float]]) -> None:
    """Print a table of top-1 accuracies in percent: a row a model, a column a task."""
    tasks = list(next(iter(rows.values())))
    widths = [max(len(task), 7) for task in tasks]
    print(" ".join(["top-1 in %  ", *(f"{t:>{w}}" for t, w in zip(tasks, widths, strict=True))]))
    for name, row in rows.items():
        cells = [f"{row[task]:>{width}.1f}" for task, width in zip(tasks, widths, strict=True)]
        print(" ".join([f"{name:<12}", *cells]))
