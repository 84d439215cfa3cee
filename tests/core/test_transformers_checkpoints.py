"""Image towers as transformers, peft and the hub have them, against the peers themselves."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from clip_checkpoints import (
    QUICK,
    SIDE,
    TINY,
    VISION_CONFIG,
    refused,
    same,
    save_adapter,
    save_vision_model,
)
from hub_server import REVISION, Hub, serving
from safetensors.torch import load_file, save_file
from torch import Tensor

from adamerge_core.checkpoints.hugging_face import to_hugging_face
from adamerge_core.checkpoints.tensor_files import TensorFile
from adamerge_core.vision.image_towers import (
    read_image_tower,
    require_text_tower,
)

pytestmark = pytest.mark.usefixtures("tiny")


def test_shards_are_read_as_one(tmp_path: Path, tower: dict[str, Tensor]) -> None:
    folder = save_vision_model(tmp_path / "model", tower)
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(state)
    halves = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for file, inside in halves.items():
        save_file({n: state[n] for n in inside}, folder / file)
    weight_map = {n: file for file, inside in halves.items() for n in inside}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    found = read_image_tower(folder, tower, architecture=QUICK)
    assert same(found.tensors, tower)
    wrong = weight_map | {"more": "gone.safetensors", "up": "../model.safetensors", "x": names[0]}
    wrong[names[0]] = "model-2.safetensors"
    index.write_text(json.dumps({"weight_map": wrong}))
    refused(
        folder, "gone.safetensors", "'../model.safetensors': must be a name", "is not in model-2"
    )
    index.write_text("{")
    refused(folder, "no index of a checkpoint")


def test_pytorch_model_bin_is_read(tmp_path: Path, tower: dict[str, Tensor]) -> None:
    folder = save_vision_model(tmp_path / "model", tower, prefix="vision_model.")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert same(read_image_tower(folder, tower, architecture=QUICK).tensors, tower)


def test_each_tensor_of_transformers_is_read_once(
    tmp_path: Path, tower: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, reads = save_vision_model(tmp_path / "model", tower), list[str]()
    read = TensorFile.__getitem__
    monkeypatch.setattr(
        TensorFile, "__getitem__", lambda self, name: reads.append(name) or read(self, name)
    )
    read_image_tower(folder, tower, architecture=QUICK)
    assert sorted(reads) == sorted(load_file(folder / "model.safetensors"))


def clip_model(seed: int = 0) -> object:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(seed)
    text = {
        "vocab_size": 64,
        "hidden_size": 64,
        "intermediate_size": 256,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "max_position_embeddings": 8,
        "eos_token_id": 63,
    }
    config = transformers.CLIPConfig(
        text_config=text, vision_config=VISION_CONFIG, projection_dim=16
    )
    return transformers.CLIPModel(config).eval()


@pytest.mark.parametrize("safe", [True, False])
def test_a_clip_model_of_transformers_computes_the_same(tmp_path: Path, safe: bool) -> None:
    from open_clip.model import CLIP

    peer = clip_model()
    peer.save_pretrained(tmp_path / "model")
    if not safe:
        torch.save(load_file(tmp_path / "model/model.safetensors"), tmp_path / "pytorch_model.bin")
        (tmp_path / "model/config.json").rename(tmp_path / "config.json")
    found = read_image_tower(tmp_path / "model" if safe else tmp_path, architecture=QUICK)
    assert found.format == "Hugging Face CLIPModel"
    ours = CLIP(**TINY, quick_gelu=True).eval()
    state = {f"visual.{n}": t for n, t in found.tensors.items()} | dict(require_text_tower(found))
    ours.load_state_dict(state, strict=True)
    images, texts = torch.randn(3, 3, SIDE, SIDE), torch.randint(1, 60, (3, 8))
    texts[:, -1] = 63
    with torch.no_grad():
        image = peer.get_image_features(images)
        text = peer.get_text_features(texts)
        image, text = (
            each if isinstance(each, Tensor) else each.pooler_output for each in (image, text)
        )
        assert torch.allclose(ours.encode_image(images), image, atol=1e-5)
        assert torch.allclose(ours.encode_text(texts), text, atol=1e-5)
        assert torch.allclose(ours.logit_scale, peer.logit_scale)


@pytest.mark.parametrize("kind", ["CLIPVisionModel", "CLIPVisionModelWithProjection"])
def test_what_transformers_saves_is_read(tmp_path: Path, kind: str) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(3)
    peer = getattr(transformers, kind)(transformers.CLIPVisionConfig(**VISION_CONFIG))
    peer.save_pretrained(tmp_path)
    found = read_image_tower(tmp_path, architecture=QUICK)
    assert found.format == f"Hugging Face {kind}"
    assert found.has_projection == (kind == "CLIPVisionModelWithProjection")


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_what_peft_saves_is_merged_as_peft_does(tmp_path: Path, tower: dict[str, Tensor]) -> None:
    transformers, peft = pytest.importorskip("transformers"), pytest.importorskip("peft")
    config = peft.LoraConfig(
        r=2, lora_alpha=32, target_modules=["q_proj", "v_proj"], init_lora_weights=False
    )
    base = transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**VISION_CONFIG))
    bare = {n: t for n, t in tower.items() if n != "proj"}
    missing, extra = base.load_state_dict(to_hugging_face(bare), strict=False)
    assert not extra
    assert all("position_ids" in name for name in missing)
    adapted = peft.get_peft_model(base, config)
    adapted.save_pretrained(tmp_path)
    found = read_image_tower(tmp_path, tower, architecture=QUICK)
    merged = to_hugging_face({n: t for n, t in found.tensors.items() if n != "proj"})
    theirs = adapted.merge_and_unload().state_dict()
    assert all(torch.allclose(theirs[n], t, atol=1e-6) for n, t in merged.items())


def test_the_configuration_is_held_against_the_architecture(
    tmp_path: Path, tower: dict[str, Tensor]
) -> None:
    wrong = {"num_attention_heads": 2, "layer_norm_eps": 1e-6, "hidden_act": "relu"}
    save_vision_model(tmp_path / "model", tower, **wrong)
    refused(tmp_path / "model", "num_attention_heads = 2", "layer_norm_eps", "'relu'")
    state = to_hugging_face(tower)
    for name, prefix in (("k_proj.bias", ""), ("adapter.bias", "vision_model.")):
        key = f"vision_model.encoder.layers.0.self_attn.{name}"
        save_file(
            {n: t for n, t in state.items() if n != key} | {f"{prefix}x.y": torch.zeros(1)},
            tmp_path / "file",
        )
        refused(tmp_path / "file", str(tmp_path / "file"), "x.y: is no tensor of a CLIP image")
    save_file(state | {"pre_layrnorm.bias": torch.zeros(64)}, tmp_path / "file")
    refused(tmp_path / "file", "pre_layrnorm.bias: is there with and without its prefix")
    (tmp_path / "model/config.json").unlink()
    refused(tmp_path / "model", "no configuration beside the weights")


def test_an_adapter_needs_its_pretrained_model(tmp_path: Path) -> None:
    save_adapter(tmp_path / "lora")
    refused(tmp_path / "lora", "give that model")


# --- the hub ---


def cached(root: Path, model: str, files: Path) -> None:
    """Put a folder into the hub's cache, in huggingface_hub's layout."""
    place = root / f"models--{model.replace('/', '--')}"
    commit = "0" * 40
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text(commit)
    (place / "snapshots").mkdir()
    files.rename(place / "snapshots" / commit)


def test_a_model_of_the_hubs_cache_is_read(
    tmp_path: Path, tower: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(
        "huggingface_hub.HfApi.list_repo_files", lambda *_, **__: pytest.fail("asked the hub")
    )
    monkeypatch.chdir(tmp_path)
    refused("org/name", "not in the cache", "HF_HUB_OFFLINE=0")
    cached(tmp_path / "hub", "org/name", save_vision_model(tmp_path / "model", tower))
    found = read_image_tower("org/name", tower, architecture=QUICK)
    assert same(found.tensors, tower)
    assert found.source == "org/name"
    refused(Path("org/name"), "no such file")


def in_a_process(folder: Path, offline: str, hub: Hub) -> subprocess.CompletedProcess[str]:
    """Read the model of a hub in a process of its own, which reads its settings at the start."""
    script = (
        "from adamerge_core.vision.image_towers import read_image_tower\n"
        "read_image_tower('org/name', architecture='ViT-B-32-quickgelu')"
    )
    environment = {"HF_ENDPOINT": hub.address, "HF_HOME": str(folder), "HF_HUB_OFFLINE": offline}
    return subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | environment | {"HF_HUB_DISABLE_XET": "1"},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_a_model_is_fetched_where_that_is_allowed(tmp_path: Path, tower: dict[str, Tensor]) -> None:
    """Its configuration and one form of its weights, once; read from the cache afterwards."""
    folder = save_vision_model(tmp_path / "model", tower)
    files = {each.name: each.read_bytes() for each in folder.iterdir()}
    others = {"pytorch_model.bin": b"x", "tf_model.h5": b"x", "README.md": b"x"}
    wanted = {f"GET /org/name/resolve/{REVISION}/{name}" for name in files}
    with serving(Hub("org/name", files | others, kind="models")) as hub:
        done = in_a_process(tmp_path, "1", hub)
        assert "HF_HUB_OFFLINE=0" in done.stderr
        assert hub.asked == []
        done = in_a_process(tmp_path, "0", hub)
        assert "(Hugging Face CLIPVisionModel)" in done.stderr  # fetched, and of another size
        assert wanted == {each for each in hub.asked if "GET /org" in each}
        hub.asked.clear()
        done = in_a_process(tmp_path, "1", hub)
        assert "(Hugging Face CLIPVisionModel)" in done.stderr
        assert hub.asked == []
