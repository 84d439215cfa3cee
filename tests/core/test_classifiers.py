"""Classifiers of timm, torchvision and transformers: encoder and head together are the model."""

import copy

import pytest
import timm
import torch
import torchvision

from adamerge_core.errors import InputError
from adamerge_core.vision.classifiers import (
    LinearHead,
    classifier_name,
    feature_encoder,
    split_state,
)


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
