"""Exported folders, opened by open_clip and transformers themselves: features as ours, to 1e-5."""

from pathlib import Path

import open_clip
import pytest
import torch
from open_clip.model import CLIP

from adamerge_core.errors import InputError
from adamerge_core.vision import architectures
from adamerge_core.vision.clip import create_clip, image_encoder, pixel_scaling
from adamerge_core.vision.export import export_open_clip, export_transformers

TINY = {
    "embed_dim": 16,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 64, "heads": 1, "layers": 1},
}


@pytest.fixture
def clip(monkeypatch: pytest.MonkeyPatch) -> CLIP:
    monkeypatch.setitem(architectures.ARCHITECTURES, "tiny_vit", TINY)
    monkeypatch.setitem(
        architectures.PIXEL_SCALING, "tiny_vit", ((120.0, 110.0, 100.0), (60.0, 61.0, 62.0))
    )
    architectures.known_architectures.cache_clear()
    torch.manual_seed(0)
    yield create_clip("tiny_vit").eval()
    architectures.known_architectures.cache_clear()


def images() -> torch.Tensor:
    return torch.randint(256, (4, 32, 32, 3), dtype=torch.uint8)


def scaled(pixels: torch.Tensor, mean: list[float], deviation: list[float]) -> torch.Tensor:
    return ((pixels / 255 - torch.tensor(mean)) / torch.tensor(deviation)).permute(0, 3, 1, 2)


def test_open_clip_opens_it(clip: CLIP, tmp_path: Path) -> None:
    text = {n: t for n, t in clip.state_dict().items() if not n.startswith("visual.")}
    scaling = pixel_scaling("tiny_vit")
    export_open_clip(tmp_path, "tiny_vit", scaling, clip.visual.state_dict(), text)
    peer, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{tmp_path}")
    normalize = preprocess.transforms[-1]
    pixels = images()
    with torch.no_grad():
        theirs = peer.eval().visual(scaled(pixels, list(normalize.mean), list(normalize.std)))
        ours = image_encoder(clip, scaling)(pixels)
    assert torch.allclose(ours, theirs, atol=1e-5)
    assert torch.equal(peer.token_embedding.weight, clip.token_embedding.weight)


def test_transformers_opens_it(clip: CLIP, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    scaling = pixel_scaling("tiny_vit")
    export_transformers(tmp_path, "tiny_vit", scaling, clip.visual.state_dict())
    peer = transformers.CLIPVisionModelWithProjection.from_pretrained(tmp_path).eval()
    processor = transformers.CLIPImageProcessor.from_pretrained(tmp_path)
    pixels = images()
    with torch.no_grad():
        seen = scaled(pixels, processor.image_mean, processor.image_std)
        theirs = peer(seen).image_embeds
        ours = image_encoder(clip, scaling)(pixels)
    assert torch.allclose(ours, theirs, atol=1e-5)
    assert peer.config.hidden_act == "quick_gelu"


def test_what_transformers_does_not_have_is_refused(tmp_path: Path) -> None:
    mini = "efficientnet_lite0_clip"
    with pytest.raises(InputError, match="transformers has none such; export it for open_clip"):
        export_transformers(tmp_path, mini, pixel_scaling(mini), {})
