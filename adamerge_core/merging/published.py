"""The coefficients that the AdaMerging paper's authors learned, applied as they published them."""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adamerge_core.checkpoints import StateDict
from adamerge_core.errors import InputError
from adamerge_core.merging.registry import merge_rule
from adamerge_core.task_vectors import TaskVectors

_FILE = Path(__file__).with_name("published_coefficients.json")

_BEFORE_THE_TOWER = ("positional_embedding", "text_projection", "logit_scale")
_AFTER_THE_TOWER = ("token_embedding.weight", "ln_final.weight", "ln_final.bias")
"""Rows of the text tower, which take no part."""

_IN_A_BLOCK = (
    *("ln_1.weight", "ln_1.bias"),
    *("attn.in_proj_weight", "attn.in_proj_bias", "attn.out_proj.weight", "attn.out_proj.bias"),
    *("ln_2.weight", "ln_2.bias"),
    *("mlp.c_fc.weight", "mlp.c_fc.bias", "mlp.c_proj.weight", "mlp.c_proj.bias"),
)
_BLOCKS = {"ViT-B-32": 12, "ViT-B-16": 12, "ViT-L-14": 24}

_OTHER_NAMES = {"stanford_cars": "cars"}
"""Of tasks, here and in the file."""


@merge_rule(source="arXiv 2310.02575; github.com/EnnengYang/AdaMerging, MIT licence")
def published_coefficients(
    task_vectors: TaskVectors,
    model: str = "ViT-B-32",
    learned: str = "layer_wise_adamerging",
) -> StateDict:
    """Merge by the coefficients that the AdaMerging paper's authors learned and published.

    model: ViT-B-32, ViT-B-16 or ViT-L-14, whose task vectors these are, in open_clip's names.
    learned: task_wise_adamerging or layer_wise_adamerging; with `_pp` they are of task vectors
    that `trim_and_elect` with keep = 0.2 stands before. On the checkpoints that the authors of task
    arithmetic published they give the paper's accuracy; on others they are somebody else's. The
    file has rows without names: the order of a row's block follows open_clip, whose version the
    authors did not state. Raises InputError unless the tasks are the paper's eight, and for
    a layer that the file does not have.
    """
    rows = _rows(model, learned)
    layers = task_vectors.layer_names
    if not layers:
        return task_vectors.merge(torch.empty(0, len(task_vectors.task_names)))
    columns = _columns(task_vectors.task_names)
    unknown = [name for name in layers if rows.keys() != {""} and name not in rows]
    if unknown:
        raise InputError.listing(
            f"published_coefficients of {model}",
            [f"{name}: is no layer of this model's image tower" for name in unknown],
            shown=10,
        )
    chosen = [rows.get(name, rows.get("")) for name in layers]
    return task_vectors.merge(torch.stack([row[columns] for row in chosen if row is not None]))


def _columns(tasks: tuple[str, ...]) -> list[int]:
    known = _content()["tasks"]
    named = [_OTHER_NAMES.get(task, task) for task in tasks]
    if sorted(named) != sorted(known):
        raise InputError(
            f"published_coefficients: the tasks are {', '.join(tasks)}; they must be the paper's "
            f"eight, {', '.join(known)}"
        )
    return [known.index(name) for name in named]


def _rows(model: str, learned: str) -> dict[str, Tensor]:
    """Read the coefficients [8] of each layer by its name; task-wise ones under ""."""
    content = _content()["coefficients"]
    faults = []
    if model not in content:
        faults.append(f"model = {model!r}: must be one of {', '.join(content)}")
    elif learned not in content[model]:
        faults.append(f"learned = {learned!r}: must be one of {', '.join(content[model])}")
    if faults:
        raise InputError.listing("published_coefficients", faults)
    values = torch.tensor(content[model][learned], dtype=torch.float64)
    if len(values) == 1:
        return {"": values[0]}
    return dict(zip(_names(_BLOCKS[model]), values, strict=True))


def _names(blocks: int) -> Iterator[str]:
    """Name the rows of a file, those of the text tower by names that no image tower has."""
    yield from (f"text tower's {name}" for name in _BEFORE_THE_TOWER)
    yield from ("class_embedding", "positional_embedding", "proj", "conv1.weight")
    yield from ("ln_pre.weight", "ln_pre.bias")
    for block in range(blocks):
        yield from (f"transformer.resblocks.{block}.{name}" for name in _IN_A_BLOCK)
    yield from ("ln_post.weight", "ln_post.bias")
    yield from (f"text tower's {name}" for name in _AFTER_THE_TOWER)


@cache
def _content() -> dict[str, Any]:
    return dict(json.loads(_FILE.read_text(encoding="utf-8")))
