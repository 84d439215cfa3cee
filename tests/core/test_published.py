"""The coefficients that the paper's authors published, applied to models of open_clip's shapes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT

from adamerge_core.errors import InputError
from adamerge_core.merging import RULES
from adamerge_core.merging.published import _names, _rows
from adamerge_core.task_vectors import TaskVectors
from adamerge_core.vision.clip import create_clip

FILE = ROOT / "adamerge_core/merging/published_coefficients.json"
TASKS = ("stanford_cars", "dtd", "eurosat", "gtsrb", "mnist", "resisc45", "sun397", "svhn")
"""The paper's, in an order that is not the file's."""


def vectors(*names: str) -> TaskVectors:
    rng = torch.Generator().manual_seed(0)
    pretrained = {name: torch.randn(3, generator=rng).double() for name in names}
    layers = {name: torch.randn(8, 3, generator=rng).double() for name in names}
    return TaskVectors(pretrained, TASKS, layers)


def test_rows_are_named_in_the_order_of_open_clips_image_tower() -> None:
    tower = list(create_clip("ViT-B-32-quickgelu", device="meta").visual.state_dict())
    names = list(_names(12))
    assert names[3:-3] == tower
    assert all(name.startswith("text tower") for name in (*names[:3], *names[-3:]))


@pytest.mark.parametrize("learned", ["layer_wise_adamerging", "task_wise_adamerging"])
def test_each_task_has_its_own_column(learned: str) -> None:
    content = json.loads(Path(FILE).read_text())
    given = content["coefficients"]["ViT-B-32"][learned]
    places = {"proj": 5, "transformer.resblocks.2.mlp.c_fc.weight": 3 + 6 + 2 * 12 + 8}
    original = vectors(*places)
    merged = RULES["published_coefficients"](original, learned=learned)
    for name, place in places.items():
        row = given[0 if len(given) == 1 else place]
        by_task = dict(zip(content["tasks"], row, strict=True))
        expected = original.pretrained[name].numpy().copy()
        for task, vector in zip(TASKS, original.layers[name].numpy(), strict=True):
            expected += by_task[{"stanford_cars": "cars"}.get(task, task)] * vector
        np.testing.assert_allclose(merged[name].numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("model", ["ViT-B-32", "ViT-B-16", "ViT-L-14"])
def test_every_model_has_a_row_a_tensor(model: str) -> None:
    for learned in ("layer_wise_adamerging", "layer_wise_adamerging_pp"):
        rows = _rows(model, learned)
        assert len(rows) == (302 if model == "ViT-L-14" else 158)
        assert all(0 <= float(row.min()) <= float(row.max()) <= 1 for row in rows.values())


def test_what_they_are_not_of_is_refused() -> None:
    rule = RULES["published_coefficients"]
    with pytest.raises(InputError, match="must be the paper's eight, sun397, cars"):
        rule(vectors("proj").select(TASKS[:7]))
    with pytest.raises(InputError, match=r"trunk.conv: is no layer of this model's image tower"):
        rule(vectors("proj", "trunk.conv"))
    with pytest.raises(InputError, match=r"model = 'ViT-B-8': must be one of ViT-B-32"):
        rule(vectors("proj"), model="ViT-B-8")
    with pytest.raises(InputError, match=r"learned = 'best': must be one of task_wise"):
        rule(vectors("proj"), learned="best")
