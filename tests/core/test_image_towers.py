"""Image towers from every format: the same tensors to the bit, or an error that says why."""

import hashlib
import io
import json
import os
import subprocess
import sys
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from clip_checkpoints import (
    NAME,
    QUICK,
    SIDE,
    TINY,
    VISION_CONFIG,
    VIT_B_32,
    in_all_formats,
    known,
    merged_by_hand,
    save_adapter,
    save_vision_model,
    tower_of,
    whole_clip,
)
from hub_server import REVISION, Hub, serving
from published_pickles import (
    GLOBALS,
    encoder_pickle,
    head_pickle,
    names_of,
    tall_masks_state,
    write,
)
from safetensors.torch import load_file, save_file
from torch import Tensor

from adamerge_core.checkpoints.hugging_face import to_hugging_face
from adamerge_core.checkpoints.tensor_files import TensorFile
from adamerge_core.errors import InputError
from adamerge_core.vision import openai_files
from adamerge_core.vision.checkpoint_formats import FORMATS
from adamerge_core.vision.classifiers import read_classifier
from adamerge_core.vision.image_towers import (
    check_different,
    read_image_tower,
    require_text_tower,
)
from adamerge_core.vision.published_heads import read_head


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with known(monkeypatch):
        yield


@pytest.fixture(scope="module")
def whole() -> dict[str, Tensor]:
    return whole_clip(0)


@pytest.fixture(scope="module")
def tower(whole: dict[str, Tensor]) -> dict[str, Tensor]:
    return tower_of(whole)


def same(found: object, expected: dict[str, Tensor]) -> bool:
    assert dict(found).keys() == expected.keys()
    return all(torch.equal(found[name], expected[name]) for name in expected)


def refused(path: Path | str, *parts: str, architecture: str = QUICK, **options: object) -> None:
    with pytest.raises(InputError) as caught:
        read_image_tower(path, architecture=architecture, **options)
    for part in parts:
        assert part in str(caught.value)


# --- the same tensors ---


def all_formats_agree(folder: Path, pretrained: dict[str, Tensor], architecture: str) -> None:
    adapter = save_adapter(
        folder / "lora",
        width=len(pretrained["visual.class_embedding"]),
        layers=max(int(n.split(".")[3]) + 1 for n in pretrained if "visual.transformer" in n),
    )
    whole = merged_by_hand(pretrained, adapter)
    paths = in_all_formats(folder, whole) | {"LoRA": folder / "lora"}
    base = tower_of(pretrained)
    towers = {
        name: read_image_tower(path, base, architecture=architecture)
        for name, path in paths.items()
    }
    for name, found in towers.items():
        assert same(found.tensors, tower_of(whole)), name
        assert found.has_projection
        assert found.source == str(paths[name])
    assert len({found.sha256 for found in towers.values()}) == 1
    assert len({found.format for found in towers.values()}) == 6


def test_all_formats_give_the_same_tensors(tmp_path: Path) -> None:
    all_formats_agree(tmp_path, whole_clip(1), QUICK)


@pytest.mark.slow
def test_all_formats_give_the_same_vit_b_32(tmp_path: Path) -> None:
    """In the shapes and counts of the published files: 302 tensors, of which 152 are visual."""
    whole = whole_clip(0, VIT_B_32)
    assert len(whole) == 302
    assert len(tower_of(whole)) == 152
    assert len(tall_masks_state(whole)) == 158
    all_formats_agree(tmp_path, whole, "ViT-B-32-quickgelu")


@pytest.mark.slow
def test_no_file_is_held_twice(tmp_path: Path) -> None:
    """The peak of memory, of a ViT-B/32 in a process of its own, against the file's bytes."""
    whole = whole_clip(0, VIT_B_32)
    tower = {n: t for n, t in tower_of(whole).items() if n != "proj"}
    torch.save(tower_of(whole), tmp_path / "pretrained.pt")
    torch.save(to_hugging_face(tower), tmp_path / "hugging_face.bin")
    paths = in_all_formats(tmp_path, whole) | {"bin": tmp_path / "hugging_face.bin"}
    script = (
        "import sys; from pathlib import Path\n"
        "from adamerge_core import checkpoints\n"
        "from adamerge_core.vision.image_towers import read_image_tower\n"
        "def kilobytes():\n"
        "    lines = Path('/proc/self/status').read_text().splitlines()\n"
        "    return next(int(each.split()[1]) for each in lines if each.startswith('VmHWM'))\n"
        "pretrained = checkpoints.load(sys.argv[1])\n"
        "Path('/proc/self/clear_refs').write_text('5'); before = kilobytes()\n"
        "read_image_tower(sys.argv[2], pretrained, architecture='ViT-B-32-quickgelu')\n"
        "print(kilobytes() - before)"
    )
    for name, path in paths.items():
        command = [sys.executable, "-c", script, str(tmp_path / "pretrained.pt"), str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        file = path / "model.safetensors" if path.is_dir() else path
        assert int(done.stdout) * 1024 < 1.4 * file.stat().st_size, name


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("key", [None, "state_dict", "model"])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ""])
def test_torch_state_dicts_are_read_whatever_their_names(
    tmp_path: Path, whole: dict[str, Tensor], key: str | None, suffix: str, legacy: bool
) -> None:
    path = tmp_path / f"model{suffix}"
    content = {key: whole, "epoch": 3} if key else whole
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    assert same(read_image_tower(path, architecture=QUICK).tensors, tower_of(whole))


PREFIXES = [
    "",
    "visual.",
    "model.",
    "module.",
    "model.visual.",
    "module.model.visual.",
    "_orig_mod.module.visual.",
    "image_encoder.model.visual.",
    "module._orig_mod.image_encoder.module.model.visual._orig_mod.",
]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_prefixes_in_any_nesting_are_taken_off(
    tmp_path: Path, tower: dict[str, Tensor], prefix: str
) -> None:
    save_file({prefix + n: t for n, t in tower.items()}, tmp_path / "model")
    assert same(read_image_tower(tmp_path / "model", architecture=QUICK).tensors, tower)


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "_orig_mod.module."])
def test_a_whole_clip_gives_its_text_tower(
    tmp_path: Path, whole: dict[str, Tensor], prefix: str
) -> None:
    save_file({prefix + n: t for n, t in whole.items()}, tmp_path / "model")
    found = read_image_tower(tmp_path / "model", architecture=QUICK)
    text = {n: t for n, t in whole.items() if not n.startswith("visual.")}
    assert same(require_text_tower(found), text)
    assert found.remarks == ()


def test_names_that_wrappers_make_one_are_refused(tmp_path: Path, tower: dict[str, Tensor]) -> None:
    save_file({**tower, "module.proj": tower["proj"].clone()}, tmp_path / "model")
    refused(tmp_path / "model", "proj", "module.proj", "but for wrappers")


def test_prefixes_without_end_are_no_tower(tmp_path: Path, tower: dict[str, Tensor]) -> None:
    save_file({"model." * 10_000 + n: t for n, t in tower.items()}, tmp_path / "model")
    refused(tmp_path / "model", "no image tower of a CLIP")


def test_compiled_blocks_are_read(tmp_path: Path, tower: dict[str, Tensor]) -> None:
    compiled = {n.replace("resblocks.0.", "resblocks.0._orig_mod."): t for n, t in tower.items()}
    save_file(compiled, tmp_path / "model")
    assert same(read_image_tower(tmp_path / "model", architecture=QUICK).tensors, tower)


def test_a_classification_head_beside_the_encoder_is_left_out_and_said_so(
    tmp_path: Path, whole: dict[str, Tensor]
) -> None:
    state = {f"image_encoder.{n}": t for n, t in tall_masks_state(whole).items()}
    save_file(state | {"classification_head.weight": torch.ones(3, 16)}, tmp_path / "model")
    found = read_image_tower(tmp_path / "model", architecture=QUICK)
    assert same(found.tensors, tower_of(whole))
    assert any("classification_head.weight" in remark for remark in found.remarks)


class Published(torch.nn.Module):
    """Holds tensors by any names, and can be scripted."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        super().__init__()
        for name, tensor in state.items():
            *parents, last = name.split(".")
            place: torch.nn.Module = self
            for parent in parents:
                if parent not in dict(place.named_children()):
                    place.add_module(parent, torch.nn.Module())
                place = place.get_submodule(parent)
            place.register_buffer(last, tensor.half() if tensor.is_floating_point() else tensor)

    def forward(self) -> int:
        return 0


def test_openais_archive_is_read_if_openai_published_it(
    tmp_path: Path, whole: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = {"input_resolution": SIDE, "context_length": 8, "vocab_size": 64}
    published = Published(whole | {name: torch.tensor(n) for name, n in numbers.items()})
    path = tmp_path / "ViT.pt"
    with pytest.warns(FutureWarning):
        torch.jit.script(published).save(str(path))
    refused(path, "none of those that OpenAI published")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    monkeypatch.setattr(openai_files, "_published_sha256", lambda: {digest})
    refused(path, "trained with quick_gelu", architecture=NAME)
    found = read_image_tower(path, architecture=QUICK)
    assert same(found.tensors, {n: t.half().float() for n, t in tower_of(whole).items()})
    assert len(require_text_tower(found)) == len(whole) - len(tower_of(whole))


# --- transformers ---


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


# --- what does not fit ---


def test_all_that_does_not_fit_is_in_one_error(tmp_path: Path, tower: dict[str, Tensor]) -> None:
    wrong = {name: tensor.clone() for name, tensor in tower.items()}
    wrong["konv1.weight"] = wrong.pop("conv1.weight")
    wrong["ln_post.bias"] = wrong["ln_post.bias"].half()
    wrong["ln_post.weight"][3] = torch.nan
    wrong["class_embedding"][3] = torch.inf
    save_file(wrong, tmp_path / "model")
    for pretrained in (tower, None):
        refused(
            tmp_path / "model",
            "conv1.weight is missing",
            "konv1.weight is extra",
            "ln_post.bias, torch.float16 in place of torch.float32",
            "ln_post.weight has 1 non-finite",
            "class_embedding has 1 non-finite",
            pretrained=pretrained,
        )


def test_half_precision_is_not_mixed_with_full(tmp_path: Path, tower: dict[str, Tensor]) -> None:
    half = {name: tensor.half() for name, tensor in tower.items()}
    save_file(half, tmp_path / "half")
    save_file(tower, tmp_path / "full")
    for path, pretrained in (("half", tower), ("full", half)):
        refused(tmp_path / path, "torch.float16", "in one dtype", pretrained=pretrained)
    assert same(read_image_tower(tmp_path / "half", half, architecture=QUICK).tensors, half)
    assert same(read_image_tower(tmp_path / "half", architecture=QUICK).tensors, half)


def test_the_shapes_say_which_architecture_it_is(tmp_path: Path) -> None:
    with torch.device("meta"):
        large = {
            "conv1.weight": torch.zeros(1024, 3, 14, 14),
            "positional_embedding": torch.zeros(257, 1024),
            "proj": torch.zeros(1024, 768),
            "class_embedding": torch.zeros(1024),
            **{f"transformer.resblocks.{n}.ln_1.bias": torch.zeros(1024) for n in range(24)},
        }
    save_file({n: torch.zeros(t.shape) for n, t in large.items()}, tmp_path / "model")
    for asked in ("ViT-B-32-quickgelu", QUICK):
        refused(tmp_path / "model", "looks like ViT-L-14-quickgelu", architecture=asked)
    refused(tmp_path / "model", "looks like ViT-L-14 or", architecture="ViT-B-32")
    refused(tmp_path / "model", "ViT-B-99", architecture="ViT-B-99")


def test_a_missing_text_tower_is_said(tmp_path: Path, tower: dict[str, Tensor]) -> None:
    save_file(tower, tmp_path / "model")
    with pytest.raises(InputError, match="has no whole text tower"):
        require_text_tower(read_image_tower(tmp_path / "model", architecture=QUICK))


def test_a_text_tower_of_another_architecture_is_left_out(
    tmp_path: Path, whole: dict[str, Tensor]
) -> None:
    save_file(whole | {"text_projection": torch.zeros(3, 3)}, tmp_path / "model")
    found = read_image_tower(tmp_path / "model", architecture=QUICK)
    assert found.text_tower == {}
    assert "shapes are not those" in found.remarks[0]


@pytest.mark.parametrize("content", [b"", b"GIF89a" * 30, b"PK\x03\x04", b"<html>"])
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    refused(write(tmp_path / "model.safetensors", content), str(tmp_path / "model.safetensors"))


def test_folders_and_paths_without_a_checkpoint_are_refused(tmp_path: Path) -> None:
    refused(tmp_path, "a folder without a checkpoint", "adapter_config.json")
    refused(tmp_path / "none.pt", "no such file")
    refused("nothing at all", "no such file")


def test_two_tasks_with_the_same_content_are_named(
    tmp_path: Path, whole: dict[str, Tensor]
) -> None:
    torch.save(tower_of(whole), tmp_path / "svhn.pt")
    save_file(whole, tmp_path / "mnist.safetensors")
    save_file(whole_clip(5), tmp_path / "cars.safetensors")
    names = {"mnist": "mnist.safetensors", "cars": "cars.safetensors", "svhn": "svhn.pt"}
    towers = {
        task: read_image_tower(tmp_path / file, architecture=QUICK) for task, file in names.items()
    }
    with pytest.raises(InputError, match=r"mnist and svhn: are the same model") as caught:
        check_different(towers)
    assert "cars" not in str(caught.value)
    del towers["svhn"]
    check_different(towers)


def test_no_file_is_of_two_formats() -> None:
    assert len(FORMATS) == 6
    assert all(each.module.startswith("adamerge_core.vision") for each in FORMATS.values())


# --- traps of the field's checkpoints ---


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


# --- plain classifiers ---


def test_a_classifiers_checkpoint_is_split_into_encoder_and_head(tmp_path: Path) -> None:
    import timm

    model = timm.create_model("resnet10t", num_classes=5)
    other = timm.create_model("resnet10t", num_classes=3)
    torch.save(
        {"state_dict": {f"module.{n}": t for n, t in other.state_dict().items()}}, tmp_path / "m"
    )
    encoder, head = read_classifier(tmp_path / "m", model)
    assert same(head, {"weight": other.fc.weight, "bias": other.fc.bias})
    assert "conv1.0.weight" in encoder
    assert not any(name.startswith("fc.") for name in encoder)
    with pytest.raises(InputError, match="is missing"):
        read_classifier(tmp_path / "m", timm.create_model("resnet18", num_classes=5))


def test_a_classifier_of_transformers_is_read_by_its_models_names(tmp_path: Path) -> None:
    """transformers 5 writes folders of ViT under the names of transformers 4."""
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.ViTConfig(
        **sizes, intermediate_size=32, image_size=64, patch_size=32, num_labels=5
    )
    model = transformers.ViTForImageClassification(config)
    model.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "model.pt")
    encoder, head = read_classifier(tmp_path / "model.pt", model)
    assert same(head, dict(model.classifier.state_dict()))
    assert same(encoder | {f"classifier.{n}": t for n, t in head.items()}, model.state_dict())
    with pytest.raises(InputError, match="query.weight is extra"):
        read_classifier(tmp_path, model)
    refused(tmp_path, "no image tower of a CLIP", "model_type = 'vit'")
