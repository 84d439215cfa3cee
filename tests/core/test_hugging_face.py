"""Image towers in the names of transformers, against transformers itself."""

import pytest
import torch
from open_clip.model import CLIP

from adamerge_core.checkpoints.hugging_face import (
    from_hugging_face,
    is_hugging_face,
    to_hugging_face,
)
from adamerge_core.errors import InputError

transformers = pytest.importorskip("transformers")

WIDTH, LAYERS, EMBED = 64, 3, 16


@pytest.fixture(scope="module")
def tower() -> torch.nn.Module:
    torch.manual_seed(0)
    vision = {"image_size": 32, "layers": LAYERS, "width": WIDTH, "patch_size": 16}
    text = {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1}
    return CLIP(EMBED, vision, text, quick_gelu=True).eval().visual


def config() -> object:
    return transformers.CLIPVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=1,
        image_size=32,
        patch_size=16,
        projection_dim=EMBED,
        hidden_act="quick_gelu",
    )


def test_features_are_transformers_own(tower: torch.nn.Module) -> None:
    images = torch.randn(4, 3, 32, 32)
    peer = transformers.CLIPVisionModelWithProjection(config()).eval()
    missing, extra = peer.load_state_dict(to_hugging_face(tower.state_dict()), strict=False)
    assert not extra
    assert all("position_ids" in name for name in missing)
    with torch.no_grad():
        assert torch.allclose(peer(images).image_embeds, tower(images), atol=1e-5)


def test_there_and_back_is_the_same_to_the_bit(tower: torch.nn.Module) -> None:
    state = tower.state_dict()
    back = from_hugging_face(to_hugging_face(state))
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)


@pytest.mark.parametrize("kind", ["CLIPVisionModel", "CLIPVisionModelWithProjection"])
def test_a_state_dict_of_transformers_is_read(kind: str, tower: torch.nn.Module) -> None:
    torch.manual_seed(1)
    peer = getattr(transformers, kind)(config()).eval()
    state = peer.state_dict()
    assert is_hugging_face(state)
    named = from_hugging_face(state)
    without = {"proj"} if kind == "CLIPVisionModel" else set()
    assert tower.state_dict().keys() - named.keys() == without
    prefixed = {
        f"vision_model.{name.removeprefix('vision_model.')}": t for name, t in state.items()
    }
    if kind == "CLIPVisionModel":  # as transformers 4 wrote it
        assert from_hugging_face(prefixed).keys() == named.keys()


def test_what_is_no_image_tower_is_listed(tower: torch.nn.Module) -> None:
    state = to_hugging_face(tower.state_dict())
    del state["vision_model.encoder.layers.1.self_attn.k_proj.bias"]
    state["vision_model.adapter.weight"] = torch.zeros(1)
    state["text_model.embeddings.token_embedding.weight"] = torch.zeros(1)
    with pytest.raises(InputError) as caught:
        from_hugging_face(state)
    assert "block 1: has no k_proj" in str(caught.value)
    assert "adapter.weight: is no tensor of a CLIP image tower" in str(caught.value)
    assert "text_model" not in str(caught.value)
    with pytest.raises(InputError, match=r"trunk\.conv_stem\.weight: is no tensor of a ViT"):
        to_hugging_face({"trunk.conv_stem.weight": torch.zeros(1)})
    assert not is_hugging_face(tower.state_dict())
