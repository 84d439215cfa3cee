"""What a model's source is: its image tower by name or path, and an encoder that holds it.

A model is a CLIP or a plain classifier, whose encoder is its image tower.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import open_clip
import torch
from open_clip.model import CLIP
from torch import Tensor, nn

from adamerge_core import checkpoints
from adamerge_core.checkpoints.content_hash import content_sha256
from adamerge_core.checkpoints.torch_files import is_torch_file
from adamerge_core.errors import InputError
from adamerge_core.vision.architectures import (
    SHIPPED_WEIGHTS,
    PixelScaling,
    is_classifier,
)
from adamerge_core.vision.classifier_architectures import (
    classifier_encoder,
    classifier_input,
    create_classifier,
)
from adamerge_core.vision.classifiers import classifier_name, split_state
from adamerge_core.vision.clip import create_clip, image_encoder, pixel_scaling
from adamerge_core.vision.clip_weights import PretrainedWeights, create_pretrained_clip
from adamerge_core.vision.export import is_clip_vit
from adamerge_core.vision.image_towers import (
    ImageTower,
    read_image_tower,
    require_text_tower,
)
from adamerge_core.vision.imagenet import load_efficientnet_lite0

IMAGENET = "imagenet"
"""The ImageNet weights that a package ships, of the architectures in SHIPPED_WEIGHTS; those of a
CLIP are without a text tower."""

_VISUAL = "visual."


def read_pretrained(source: str, architecture: str) -> ImageTower:
    """Read the pretrained model: `imagenet`, a tag of open_clip's, a checkpoint, or a hub's model.

    Its dtype is the file's. Nothing is downloaded unless HF_HUB_OFFLINE=0 says so. Raises
    InputError where there is none, or it is not of this architecture.
    """
    if Path(source).exists():
        return read_image_tower(source, architecture=architecture)
    if source == IMAGENET:
        return _imagenet(architecture)
    if is_classifier(architecture):
        return read_image_tower(source, architecture=architecture)
    if source in open_clip.list_pretrained_tags_by_model(architecture):
        clip = create_pretrained_clip(architecture, PretrainedWeights(tag=source))
        return _tower(clip, f"open_clip's tag {source}", source, ())
    return read_image_tower(source, architecture=architecture)


def _imagenet(architecture: str) -> ImageTower:
    if architecture not in SHIPPED_WEIGHTS:
        tag = "" if is_classifier(architecture) else "a tag of open_clip's, "
        alike = [n for n in SHIPPED_WEIGHTS if is_classifier(n) == is_classifier(architecture)]
        raise InputError(
            f"pretrained = {IMAGENET!r}: is of {alike[0]}, not of {architecture}; give {tag}a "
            "path, or a model of the hub"
        )
    if is_classifier(architecture):
        return _imagenet_classifier(architecture)
    with torch.random.fork_rng(devices=[]):  # loading makes a model of its own
        clip = _seeded(architecture)
        load_efficientnet_lite0(clip.visual.trunk)
    remark = "its projection is a random one, always the same; no text tower"
    tower = _tower(clip, "ImageNet weights of a package", IMAGENET, (remark,))
    return replace(tower, text_tower={})


def _imagenet_classifier(architecture: str) -> ImageTower:
    model = create_classifier(architecture)
    with torch.random.fork_rng(devices=[]):
        load_efficientnet_lite0(model)
    encoder, head = split_state(model.state_dict(), classifier_name(model))
    digest = content_sha256(encoder)
    form = "ImageNet weights of a package"
    return ImageTower(encoder, form, IMAGENET, {}, False, digest, (), head)


def _seeded(architecture: str) -> CLIP:
    """Make a CLIP whose random weights are always the same, apart from the process's own ones."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return create_clip(architecture)


def _tower(clip: CLIP, form: str, source: str, remarks: tuple[str, ...]) -> ImageTower:
    state = clip.state_dict()
    tensors = {n.removeprefix(_VISUAL): t for n, t in state.items() if n.startswith(_VISUAL)}
    text = {name: tensor for name, tensor in state.items() if not name.startswith(_VISUAL)}
    digest = content_sha256(tensors)
    return ImageTower(tensors, form, source, text, "proj" in tensors, digest, remarks)


def require_projection(tower: ImageTower, architecture: str) -> None:
    """Raise InputError where the image tower is a ViT without its projection."""
    if is_clip_vit(architecture) and not tower.has_projection:
        raise InputError(
            f"{tower.source} ({tower.format}): has no projection (proj); give the whole CLIP, or a "
            "tower with it"
        )


def in_float32(tower: ImageTower) -> ImageTower:
    """Widen a tower of half precision, which is exact and said in its remarks."""
    half = (torch.float16, torch.bfloat16)
    if not any(tensor.dtype in half for tensor in tower.tensors.values()):
        return tower
    image, text = (
        {name: t.float() if t.dtype in half else t for name, t in tensors.items()}
        for tensors in (tower.tensors, tower.text_tower)
    )
    remark = "is in half precision: computed with, and written, in float32"
    return replace(tower, tensors=image, text_tower=text, remarks=(*tower.remarks, remark))


def encoder_of(
    architecture: str, tensors: Mapping[str, Tensor], source: str, pixels: PixelScaling
) -> nn.Module:
    """Make the image encoder of an architecture with these weights, on the CPU.

    It takes images uint8 [N, H, W, 3] to features [N, D] float32; pixels: how it scales them (see
    scaling_of). Raises InputError listing the tensors that do not fit.
    """
    encoder = (
        classifier_encoder(architecture, pixels)
        if is_classifier(architecture)
        else image_encoder(_seeded(architecture), pixels)
    )
    checkpoints.check_same_architecture(encoder.state_dict(), {source: tensors})
    encoder.load_state_dict(dict(tensors))
    return encoder


def scaling_of(architecture: str, pretrained: str | None) -> PixelScaling:
    """Return how a model scales its images, by the tag of its pretrained weights if that is one."""
    if is_classifier(architecture):
        return classifier_input(architecture).pixels
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    return pixel_scaling(architecture, pretrained if pretrained in tags else None)


def whole_clip(architecture: str, tower: ImageTower) -> CLIP:
    """Make the whole CLIP of an image tower that has its text tower beside it.

    Raises InputError where it has none, or listing the tensors that do not fit.
    """
    text_tower = require_text_tower(tower)
    clip = _seeded(architecture).eval()
    state = {f"{_VISUAL}{name}": t for name, t in tower.tensors.items()} | dict(text_tower)
    checkpoints.check_same_architecture(clip.state_dict(), {tower.source: state})
    clip.load_state_dict(state)
    return clip


def stated_architecture(source: str) -> str | None:
    """Read which architecture a checkpoint says it is of; None where it says nothing."""
    path = Path(source)
    if not path.is_file() or is_torch_file(path):
        return None
    return checkpoints.read_metadata(path).get("architecture")
