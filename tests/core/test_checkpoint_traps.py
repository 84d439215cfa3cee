"""Traps of the field's checkpoints, each a test that is named after it."""

import io
import json
import tracemalloc
import zipfile
from pathlib import Path

import pytest
import torch
from clip_checkpoints import (
    NAME,
    QUICK,
    TINY,
    refused,
    same,
    save_vision_model,
    tower_of,
    whole_clip,
)
from published_pickles import (
    GLOBALS,
    encoder_pickle,
    head_pickle,
    names_of,
    tall_masks_state,
    write,
)
from safetensors.torch import save_file
from torch import Tensor

from adamerge_core.errors import InputError
from adamerge_core.vision.image_towers import (
    read_image_tower,
)
from adamerge_core.vision.published_heads import read_head

pytestmark = pytest.mark.usefixtures("tiny")


def test_trap_1_quick_gelu_is_not_implied(tmp_path: Path, whole: dict[str, Tensor]) -> None:
    pickled = write(tmp_path / "finetuned.pt", encoder_pickle(whole))
    refused(pickled, "trained with quick_gelu", f"take {QUICK}", architecture=NAME)
    folder = save_vision_model(tmp_path / "vision", tower_of(whole))
    refused(folder, "trained with quick_gelu", f"take {QUICK}", architecture=NAME)
    other = save_vision_model(tmp_path / "gelu", tower_of(whole), hidden_act="gelu")
    refused(other, "trained with gelu", f"take {NAME}", architecture=QUICK)
    save_file(whole, tmp_path / "silent.safetensors")
    (remark,) = read_image_tower(tmp_path / "silent.safetensors", architecture=NAME).remarks
    assert QUICK in remark
    config = {"model_cfg": TINY, "preprocess_cfg": {}}
    (tmp_path / "open_clip").mkdir()
    save_file(whole, tmp_path / "open_clip/open_clip_model.safetensors")
    (tmp_path / "open_clip/open_clip_config.json").write_text(json.dumps(config))
    refused(tmp_path / "open_clip", "trained with gelu", architecture=QUICK)
    assert same(
        read_image_tower(tmp_path / "open_clip", architecture=NAME).tensors, tower_of(whole)
    )


@pytest.mark.parametrize("module", ["src.modeling", "src.models.modeling"])
def test_trap_3_the_published_head_is_read_and_not_built_again(tmp_path: Path, module: str) -> None:
    """tall_masks' FER2013: its rows 4 to 6 are permuted, and its models were trained against it."""
    torch.manual_seed(0)
    weight = torch.randn(7, 16)
    path = write(tmp_path / "head_FER2013Val.pt", head_pickle(weight, module))
    found, bias, normalize = read_head(path)
    assert torch.equal(found, weight)
    assert torch.equal(bias, torch.zeros(7))
    assert normalize is True
    refused(path, "holds a classification head")
    for fault in ({"normalize": "yes"}, {"normalize": 1}):
        write(path, head_pickle(weight, module, **fault))
        with pytest.raises(InputError, match="must be true or false"):
            read_head(path)
    torch.save({"weight": weight}, path)
    with pytest.raises(InputError, match="a state dict, not a ClassificationHead"):
        read_head(path)


@pytest.mark.parametrize("plain", [None, 3, 4, 5])
def test_trap_4_pickled_modules_are_read_without_their_code(
    tmp_path: Path, whole: dict[str, Tensor], plain: int | None
) -> None:
    """No class that they name exists here; as zip, and as the plain pickle that B/16 Cars is."""
    path = write(tmp_path / "finetuned.pt", encoder_pickle(whole, plain=plain))
    found = read_image_tower(path, architecture=QUICK)
    assert same(found.tensors, tower_of(whole))
    assert found.format == "task_vectors' pickled module"
    with pytest.raises(ModuleNotFoundError, match="src"):
        torch.load(path, weights_only=False)


def test_trap_4_fixtures_name_what_the_published_files_name(whole: dict[str, Tensor]) -> None:
    archive = zipfile.ZipFile(io.BytesIO(encoder_pickle(whole)))
    (pickled,) = [name for name in archive.namelist() if name.endswith("data.pkl")]
    assert names_of(archive.read(pickled)) == GLOBALS
    assert len(GLOBALS) == 28


def test_trap_4_a_plain_pickle_is_not_held_twice(tmp_path: Path) -> None:
    """Python itself takes no memory for the tensors' bytes, which stay in the file until read."""
    wide = TINY | {"text_cfg": TINY["text_cfg"] | {"vocab_size": 100_000}}
    path = write(tmp_path / "finetuned.pt", encoder_pickle(whole_clip(0, wide), plain=4))
    tracemalloc.start()
    read_image_tower(path, architecture=QUICK)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert path.stat().st_size > 25_000_000
    assert peak < 10_000_000


@pytest.mark.parametrize("prefix", ["", "vision_model."])
def test_trap_5_both_prefixes_of_transformers_are_read(
    tmp_path: Path, tower: dict[str, Tensor], prefix: str
) -> None:
    folder = save_vision_model(tmp_path / "model", tower, prefix)
    assert same(read_image_tower(folder, tower, architecture=QUICK).tensors, tower)
    file = folder / "model.safetensors"
    assert same(read_image_tower(file, tower, architecture=QUICK).tensors, tower)


def test_trap_6_what_was_fine_tuned_is_said(tmp_path: Path, whole: dict[str, Tensor]) -> None:
    """FusionBench's have no projection of their own, task_vectors' six tensors beside the tower."""
    folder, tower = save_vision_model(tmp_path / "vision", tower_of(whole)), tower_of(whole)
    found = read_image_tower(folder, tower, architecture=QUICK)
    assert torch.equal(found.tensors["proj"], tower["proj"])
    assert any("no projection of its own" in remark for remark in found.remarks)
    without = read_image_tower(folder, architecture=QUICK)
    assert not without.has_projection
    assert "proj" not in without.tensors
    torch.save(tall_masks_state(whole), tmp_path / "tall.pt")
    pickled = write(tmp_path / "finetuned.pt", encoder_pickle(whole))
    for path in (tmp_path / "tall.pt", pickled):
        found = read_image_tower(path, architecture=QUICK)
        assert same(found.tensors, tower)
        assert found.text_tower == {}
        (remark,) = found.remarks
        assert "6 tensors beside the image tower" in remark
        assert "token_embedding.weight" in remark


def test_trap_10_a_load_that_takes_no_tensor_is_an_error(
    tmp_path: Path, tower: dict[str, Tensor]
) -> None:
    save_file({f"towers.visual.{n}": t for n, t in tower.items()}, tmp_path / "model")
    refused(tmp_path / "model", "no image tower of a CLIP", "towers.visual.class_embedding")
    save_file({"trunk.conv_stem.weight": torch.ones(2)}, tmp_path / "model")
    refused(tmp_path / "model", f"none of its tensors is one of {QUICK}'s")
    refused(tmp_path / "model", "none of its tensors is one of the pretrained", pretrained=tower)
