"""Classifiers of timm, torchvision and transformers: encoder and head together are the model."""

import copy
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from clip_checkpoints import same

from adamerge_core.errors import InputError
from adamerge_core.vision.classifier_checkpoints import read_classifier
from adamerge_core.vision.classifiers import (
    LinearHead,
    classifier_name,
    feature_encoder,
    split_state,
)
from adamerge_core.vision.image_towers import read_image_tower


def transformers_vit() -> torch.nn.Module:
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.ViTConfig(
        **sizes, intermediate_size=32, image_size=64, patch_size=32, num_labels=5
    )
    return transformers.ViTForImageClassification(config)


MODELS = {
    "timm vit": (lambda: timm.create_model("test_vit", num_classes=5, img_size=64), "head"),
    "timm resnet": (lambda: timm.create_model("resnet10t", num_classes=5), "fc"),
    "timm efficientnet": (lambda: timm.create_model("test_efficientnet", num_classes=5), None),
    "torchvision resnet": (lambda: torchvision.models.resnet18(num_classes=5), "fc"),
    "torchvision mobilenet": (
        lambda: torchvision.models.mobilenet_v3_small(num_classes=5),
        "classifier.3",
    ),
    "torchvision swin": (lambda: torchvision.models.swin_t(num_classes=5), "head"),
    "transformers vit": (transformers_vit, "classifier"),
}


@pytest.mark.parametrize("kind", MODELS)
def test_encoder_and_head_are_the_model(kind: str) -> None:
    torch.manual_seed(0)
    make, name = MODELS[kind]
    model = make().eval()
    found = classifier_name(model)
    assert name in (None, found)
    states, head = split_state(model.state_dict(), found)
    encoder = feature_encoder(copy.deepcopy(model))
    assert encoder.state_dict().keys() == states.keys()
    encoder.load_state_dict(states)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = model(images)
        expected = expected if isinstance(expected, torch.Tensor) else expected.logits
        found_logits = LinearHead(**head)(encoder(images))
    assert torch.allclose(found_logits, expected, atol=1e-6)


def test_what_has_no_linear_classifier_is_refused() -> None:
    with pytest.raises(InputError, match="no linear classifier"):
        classifier_name(torch.nn.Sequential(torch.nn.Linear(2, 2)))
    with pytest.raises(InputError, match=r"fc\.: a weight|classifier fc: a weight"):
        split_state({"conv.weight": torch.zeros(1)}, "fc")
    with pytest.raises(InputError, match=r"weight \(3, 4\) and bias \(4,\)"):
        LinearHead(torch.zeros(3, 4), torch.zeros(4))


def test_a_classifiers_checkpoint_is_split_into_encoder_and_head(tmp_path: Path) -> None:
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
    with pytest.raises(InputError, match=r"query\.weight is extra"):
        read_classifier(tmp_path, model)
    with pytest.raises(InputError, match=r"no image tower of a CLIP(?s:.*)model_type = 'vit'"):
        read_image_tower(tmp_path, architecture="ViT-B-32")
