"""Small plain classifiers, fine-tuned from one pretrained one, with a head a task."""

from __future__ import annotations

from pathlib import Path

import torch
from small_clip import CLASSES, moved, write_images
from torch import Tensor, nn

from adamerge_core import checkpoints
from adamerge_core.vision.classifier_architectures import create_classifier
from adamerge_core.vision.classifiers import classifier_name

TIMM, TORCHVISION = "timm:test_resnet", "torchvision:mobilenet_v3_small"


def transformers_folder(folder: Path) -> str:
    """Write the folder of a tiny ViT of transformers; gives the architecture's name."""
    import transformers

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.ViTConfig(
        **sizes, intermediate_size=32, image_size=64, patch_size=32, num_labels=7
    )
    torch.manual_seed(0)
    transformers.ViTForImageClassification(config).save_pretrained(folder)
    images = transformers.ViTImageProcessor(size={"height": 64, "width": 64})
    images.save_pretrained(folder)
    return f"transformers:{folder}"


def write_classifiers(architecture: str, folder: Path) -> dict[str, str]:
    """Write pretrained.safetensors, and <task>.safetensors with a head of each task's classes.

    Gives the fine-tuned files by task.
    """
    model = create_classifier(architecture)
    torch.manual_seed(1)
    checkpoints.save(folder / "pretrained.safetensors", calibrated(model).state_dict())
    for task, names in CLASSES.items():
        checkpoints.save(folder / f"{task}.safetensors", finetuned(model, len(names)))
    write_images(folder / "images")
    return {task: str(folder / f"{task}.safetensors") for task in CLASSES}


def calibrated(model: nn.Module) -> nn.Module:
    """Give batch norms running statistics that are not those of a new model."""
    for name, buffer in model.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.add_(0.1 * torch.rand_like(buffer))
    return model


def finetuned(model: nn.Module, classes: int) -> dict[str, Tensor]:
    """A state dict a little away from the model's, with a head of so many classes."""
    state = dict(model.state_dict())
    floats = moved({n: t for n, t in state.items() if t.is_floating_point()}, 0.005)
    name = classifier_name(model)
    width = model.get_submodule(name).weight.shape[1]
    head = {f"{name}.weight": torch.randn(classes, width), f"{name}.bias": torch.randn(classes)}
    return state | floats | head
