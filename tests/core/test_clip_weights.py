"""Weights of open_clip's models: what does not fit is said, and what was loaded has arrived."""

import hashlib
from pathlib import Path

import open_clip
import pytest
import torch
from open_clip.model import CLIP
from safetensors.torch import save_file

from adamerge_core.errors import InputError
from adamerge_core.vision import clip, clip_weights, openai_files
from adamerge_core.vision.architectures import known_architectures, uses_quick_gelu
from adamerge_core.vision.clip import create_clip, image_encoder, pixel_scaling
from adamerge_core.vision.clip_weights import (
    PretrainedWeights,
    activation,
    create_pretrained_clip,
)

SMALL = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1},
}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two tiny ViTs in the place of open_clip's, of the two activations."""
    made = {"Tiny": SMALL, "Tiny-quickgelu": SMALL | {"quick_gelu": True}}
    monkeypatch.setattr(clip_weights, "create_clip", lambda name: CLIP(**made[name]))


def save(path: Path, prefix: str = "", quick_gelu: bool = True) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    state = CLIP(**SMALL, quick_gelu=quick_gelu).state_dict()
    save_file({prefix + name: tensor for name, tensor in state.items()}, path)
    return state


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod."])
def test_a_file_arrives_in_the_model(tmp_path: Path, prefix: str) -> None:
    state = save(tmp_path / "clip.safetensors", prefix)
    weights = PretrainedWeights(file=tmp_path / "clip.safetensors", activation="quick_gelu")
    made = create_pretrained_clip("Tiny-quickgelu", weights)
    assert all(torch.equal(made.state_dict()[name], tensor) for name, tensor in state.items())


def test_the_activation_must_be_the_models(tmp_path: Path) -> None:
    """Trap 1: open_clip itself says nothing for a local file."""
    save(tmp_path / "clip.safetensors")
    file = tmp_path / "clip.safetensors"
    with pytest.raises(InputError, match=r"say which activation(?s:.*)quick_gelu"):
        create_pretrained_clip("Tiny", PretrainedWeights(file=file))
    with pytest.raises(InputError, match=r"'Tiny' has gelu(?s:.*)take 'Tiny-quickgelu'"):
        create_pretrained_clip("Tiny", PretrainedWeights(file=file, activation="quick_gelu"))
    with pytest.raises(InputError, match=r"has quick_gelu(?s:.*)take 'Tiny'"):
        create_pretrained_clip("Tiny-quickgelu", PretrainedWeights(file=file, activation="gelu"))
    with pytest.raises(InputError, match="one of the two"):
        create_pretrained_clip("Tiny", PretrainedWeights(tag="openai", file=file))


def test_a_tags_activation_is_open_clips_knowledge(monkeypatch: pytest.MonkeyPatch) -> None:
    published = {"quick_gelu": True, "hf_hub": "timm/x/"}
    monkeypatch.setattr(open_clip, "list_pretrained_tags_by_model", lambda name: ["openai"])
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda name, tag: published)
    monkeypatch.setattr(open_clip, "download_pretrained", lambda *a, **k: "unused")
    with pytest.raises(InputError, match="take 'Tiny-quickgelu'"):
        create_pretrained_clip("Tiny", PretrainedWeights(tag="openai"))
    with pytest.raises(InputError, match=r"'laion' (?s:.*)known are openai|unknown for Tiny"):
        create_pretrained_clip("Tiny", PretrainedWeights(tag="laion"))


def test_a_tag_that_is_not_in_the_cache_is_not_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: object, **__: object) -> str:
        raise FileNotFoundError("Failed to download file")

    monkeypatch.setattr(open_clip, "list_pretrained_tags_by_model", lambda name: ["openai"])
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda name, tag: {"hf_hub": "timm/x/"})
    monkeypatch.setattr(open_clip, "download_pretrained", offline)
    with pytest.raises(InputError, match=r"not in the hub's cache(?s:.*)HF_HUB_OFFLINE=0"):
        create_pretrained_clip("Tiny", PretrainedWeights(tag="openai"))


def test_what_does_not_fit_or_does_not_arrive_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "clip.safetensors"
    weights = PretrainedWeights(file=file, activation="quick_gelu")
    state = save(file)
    tower = {n.removeprefix("visual."): t for n, t in state.items() if n.startswith("visual.")}
    save_file(tower, file)
    with pytest.raises(InputError, match="no image tower in open_clip's names"):
        create_pretrained_clip("Tiny-quickgelu", weights)
    save_file({n: t for n, t in state.items() if n.startswith("visual.")}, file)
    with pytest.raises(InputError, match=r"missing(?s:.*)token_embedding"):
        create_pretrained_clip("Tiny-quickgelu", weights)
    save(file)
    monkeypatch.setattr(CLIP, "load_state_dict", lambda *a, **k: None)  # as strict=False may
    with pytest.raises(InputError, match="did not arrive"):
        create_pretrained_clip("Tiny-quickgelu", weights)


def test_openais_archive_is_read_only_if_openai_published_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Published(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(2).half())

        def forward(self) -> torch.Tensor:
            return self.weight

    file = tmp_path / "ViT.pt"
    with pytest.warns(FutureWarning):
        torch.jit.script(Published()).save(str(file))
    with pytest.raises(InputError, match="none of those that OpenAI published"):
        create_pretrained_clip("Tiny-quickgelu", PretrainedWeights(file=file))
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    monkeypatch.setattr(openai_files, "_published_sha256", lambda: {digest})
    assert openai_files.openai_state(file)["weight"].dtype == torch.float32
    with pytest.raises(InputError, match="'Tiny' has gelu"):
        create_pretrained_clip("Tiny", PretrainedWeights(file=file))


def test_openais_checksums_are_known() -> None:
    known = openai_files._published_sha256()
    assert any(digest.startswith("40d36571") for digest in known)  # ViT-B/32
    assert any(digest.startswith("5806e77c") for digest in known)  # ViT-B/16
    assert any(digest.startswith("b8cca3fd") for digest in known)  # ViT-L/14


def test_architectures_are_open_clips_and_ours() -> None:
    names = known_architectures()
    assert names[0] == "efficientnet_lite0_clip"
    assert {"ViT-B-32-quickgelu", "ViT-B-16-quickgelu", "ViT-L-14-quickgelu"} <= set(names)
    assert uses_quick_gelu("ViT-L-14-quickgelu")
    assert not uses_quick_gelu("ViT-L-14")
    with pytest.raises(InputError, match=r"ViT-B-99'(?s:.*)ViT-B-32"):
        create_clip("ViT-B-99")


def test_pixels_are_scaled_as_the_weights_saw_them() -> None:
    torch.manual_seed(0)
    model = CLIP(**SMALL, quick_gelu=True)
    images = torch.randint(256, (2, 32, 32, 3), dtype=torch.uint8)
    mean, deviation = torch.tensor(open_clip.OPENAI_DATASET_MEAN), open_clip.OPENAI_DATASET_STD
    scaled = (images / 255 - mean) / torch.tensor(deviation)
    with torch.no_grad():
        expected = model.eval().visual(scaled.permute(0, 3, 1, 2))
        found = image_encoder(model, pixel_scaling("ViT-B-32-quickgelu", "openai"))(images)
    assert torch.allclose(found, expected, atol=1e-5)
    assert activation(model) == "quick_gelu"
    assert pixel_scaling("ViT-L-14", "laion2b_s32b_b82k")[0] == (127.5, 127.5, 127.5)
    assert clip.pixel_scaling("efficientnet_lite0_clip") == ((127.0,) * 3, (128.0,) * 3)
