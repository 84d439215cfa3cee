"""The model card of a merged model: recipe, coefficients, measures, lineage."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from adamerge_core.coefficient_files import LearnedCoefficients
from adamerge_core.method_choice import MethodChoice
from adamerge_core.vision.architectures import is_classifier
from adamerge_core.vision.hub_models import is_hub_id
from adamerge_core.vision.merge_recipes import MergeInputs
from adamerge_core.vision.merged_models import MergedModel
from adamerge_core.vision.task_heads import TaskHead

_FRONT = """\
---
license: unknown
pipeline_tag: {kind}
tags:
- model-merging
- adamerge
- {architecture}
{base}---
"""


def model_card(inputs: MergeInputs, sha256: str, merged: MergedModel) -> str:
    """Write a merged model's card in Markdown, with the front matter of the Hugging Face hub.

    sha256: of the merged tensors, see content_sha256.
    """
    recipe, classifier = inputs.recipe, is_classifier(inputs.recipe.architecture)
    what, kept = ("encoder", "The") if classifier else ("image tower", "The text tower and the")
    prompted = "zero-shot-" if inputs.pretrained.text_tower else ""
    kind = f"{prompted}image-classification"
    parts = [
        _FRONT.format(architecture=recipe.architecture, kind=kind, base=_base_models(inputs)),
        f"# {recipe.architecture}, {len(inputs.tasks)} tasks merged by {recipe.method}\n",
        f"One {what} for {_listed(inputs.tasks)}, merged from models fine-tuned on one task "
        f"each. {kept} heads are not merged.\n",
        "## Recipe\n",
        *_recipe(inputs, merged.method),
        *_choice(merged.choice),
        *_coefficients(merged.coefficients),
        *_measures(inputs, merged.accuracies),
        *_tasks(inputs, merged.heads),
        *_lineage(inputs, sha256),
        "## Licence\n",
        "Not known to the program that merged: it is decided by the licences of the models and "
        "data sets above. Look these up, and set `license` at the top of this file, before you "
        "share the model.\n",
    ]
    return "\n".join(parts)


def _base_models(inputs: MergeInputs) -> str:
    """Name the models of the hub that were merged, as its cards do; empty where there are none."""
    towers = (inputs.pretrained, *(task.tower for task in inputs.tasks.values()))
    sources = [tower.source for tower in towers]
    ids = [s.partition("@")[0] for s in sources if is_hub_id(s) and not Path(s).exists()]
    lines = [f"- {name}\n" for name in dict.fromkeys(ids)]
    return "".join(["base_model:\n", *lines, "base_model_relation: merge\n"]) if lines else ""


def _listed(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _recipe(inputs: MergeInputs, method: MethodChoice) -> list[str]:
    recipe = inputs.recipe
    rows = [("method", recipe.method), ("seed", str(recipe.seed)), ("heads", recipe.head)]
    if method.settings:
        values = {**vars(method.settings), **method.mask_options}
        rows += [(key, json.dumps(value)) for key, value in values.items()]
    elif method.rule:
        defaults = {name: each.default for name, each in method.rule.entry.parameters.items()}
        values = {**defaults, **method.rule.parameters}
        rows += [(key, json.dumps(value)) for key, value in values.items()]
        rows.append(("formula", method.rule.entry.source))
    for place, part in (("before", method.before), ("after", method.after)):
        if part:
            values = dict(part.parameters)
            rows.append((place, f"{part.entry.name} {json.dumps(values)} ({part.entry.source})"))
    data = "none"
    if inputs.method.needs_labels:
        data = "labeled images of every task"
    elif inputs.method.needs_images:
        data = "unlabeled images of every task"
    rows.append(("data beside the models", data))
    return [_table(("setting", "value"), rows)]


def _choice(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    if not rows:
        return []
    columns = list(rows[0])
    lines = [[f"{v:.4g}" if isinstance(v, float) else str(v) for v in row.values()] for row in rows]
    text = "Values that were tried, and the criterion's mean on the images of each task."
    return [f"## Choice\n\n{text}\n", _table(columns, lines)]


def _coefficients(coefficients: LearnedCoefficients | None) -> list[str]:
    if coefficients is None:
        return []
    values = coefficients.values
    rows = [
        (name, *(f"{value:.3f}" for value in (column.mean(), column.min(), column.max())))
        for name, column in zip(coefficients.task_names, values.T, strict=True)
    ]
    count = len(coefficients.layer_names)
    return [
        f"## Merging coefficients\n\nOver {count} layers; each is in `coefficients.safetensors`.\n",
        _table(("task", "mean", "least", "greatest"), rows),
    ]


def _measures(inputs: MergeInputs, accuracies: Mapping[str, Mapping[str, float]]) -> list[str]:
    if not accuracies:
        return ["## Measures\n", "None: no labels were known.\n"]
    tasks = list(accuracies["merged"])
    rows = [(model, *(f"{row[task]:.1f}" for task in tasks)) for model, row in accuracies.items()]
    counts = {n: len(t.images.files) for n, t in inputs.tasks.items() if t.images}
    images = ", ".join(f"{counts[name]} of {name}" for name in tasks if name in counts)
    seen = " They are the images that the method was given." if inputs.method.needs_images else ""
    return [
        f"## Measures\n\nTop-1 accuracy in percent on {images}.{seen} `individual` is each task's "
        "own fine-tuned model.\n",
        _table(("model", *tasks), rows),
    ]


def _tasks(inputs: MergeInputs, heads: Mapping[str, TaskHead]) -> list[str]:
    rows = []
    for name in inputs.tasks:
        head = heads.get(name)
        if head is None:
            rows.append((name, "none", "", "", ""))
            continue
        names = head.classes.names
        shown = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
        rows.append((name, head.kind, head.source, str(len(names)), shown))
    return ["## Heads\n", _table(("task", "head", "source", "classes", "names"), rows)]


def _lineage(inputs: MergeInputs, sha256: str) -> list[str]:
    pretrained = inputs.pretrained
    towers = {"pretrained": pretrained}
    towers |= {f"fine-tuned on {name}": task.tower for name, task in inputs.tasks.items()}
    rows = [
        (role, _shared(tower.source), tower.format, f"`{tower.sha256}`")
        for role, tower in towers.items()
    ]
    rows.append(("merged", "image_tower.safetensors", "tensors", f"`{sha256}`"))
    parts = ["## Lineage\n", _table(("model", "source", "format", "sha256"), rows)]
    remarks = [f"- {role}: {remark}" for role, tower in towers.items() for remark in tower.remarks]
    return parts + (["\n".join(remarks) + "\n"] if remarks else [])


def _shared(source: str) -> str:
    """Name a source as others may know it: of a file its name alone, not where it lies here."""
    return Path(source).name if Path(source).exists() else source
