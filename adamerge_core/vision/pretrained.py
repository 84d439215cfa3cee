"""What a model's source is: its image tower by name or path, and an encoder that holds it."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import open_clip
import torch
from open_clip.model import CLIP
from torch import Tensor, nn

from adamerge_core import checkpoints
from adamerge_core.checkpoints.torch_files import is_torch_file
from adamerge_core.errors import InputError
from adamerge_core.vision.architectures import PixelScaling, configuration
from adamerge_core.vision.clip import create_clip, image_encoder, pixel_scaling
from adamerge_core.vision.clip_weights import PretrainedWeights, create_pretrained_clip
from adamerge_core.vision.image_towers import ImageTower, read_image_tower
from adamerge_core.vision.imagenet import load_efficientnet_lite0

IMAGENET = "imagenet"
"""The ImageNet weights that a package ships: of efficientnet_lite0_clip, without a text tower."""

_IMAGENET_ARCHITECTURE = "efficientnet_lite0_clip"
_VISUAL = "visual."


def read_pretrained(source: str, architecture: str) -> ImageTower:
    """Read the pretrained model: `imagenet`, a tag of open_clip's, a checkpoint, or a hub's model.

    Nothing is downloaded unless HF_HUB_OFFLINE=0 says so. Raises InputError where there is none,
    or it is not of this architecture.
    """
    if Path(source).exists():
        return read_image_tower(source, architecture=architecture)
    if source == IMAGENET:
        return _imagenet(architecture)
    if source in open_clip.list_pretrained_tags_by_model(architecture):
        clip = create_pretrained_clip(architecture, PretrainedWeights(tag=source))
        return _tower(clip, f"open_clip's tag {source}", source, ())
    return read_image_tower(source, architecture=architecture)


def _imagenet(architecture: str) -> ImageTower:
    if architecture != _IMAGENET_ARCHITECTURE:
        raise InputError(
            f"pretrained = {IMAGENET!r}: is of {_IMAGENET_ARCHITECTURE}, not of {architecture}; "
            "give a tag of open_clip's, a path, or a model of the hub"
        )
    with torch.random.fork_rng(devices=[]):  # loading makes a model of its own
        clip = _seeded(architecture)
        load_efficientnet_lite0(clip.visual.trunk)
    remark = "its projection is a random one, always the same; no text tower"
    tower = _tower(clip, "ImageNet weights of a package", IMAGENET, (remark,))
    return ImageTower(
        tower.tensors, tower.format, tower.source, {}, True, tower.sha256, tower.remarks
    )


def _seeded(architecture: str) -> CLIP:
    """Make a CLIP whose random weights are always the same, apart from the process's own ones."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return create_clip(architecture)


def _tower(clip: CLIP, form: str, source: str, remarks: tuple[str, ...]) -> ImageTower:
    state = clip.state_dict()
    tensors = {n.removeprefix(_VISUAL): t for n, t in state.items() if n.startswith(_VISUAL)}
    text = {name: tensor for name, tensor in state.items() if not name.startswith(_VISUAL)}
    digest = tensors_sha256(tensors)
    return ImageTower(tensors, form, source, text, "proj" in tensors, digest, remarks)


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Hash tensors by names, dtypes, shapes and values, whatever their order and file."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def encoder_of(
    architecture: str, tensors: Mapping[str, Tensor], source: str, pixels: PixelScaling
) -> nn.Module:
    """Make the image encoder of an architecture with these weights, on the CPU.

    It takes images uint8 [N, H, W, 3] to features [N, D] float32; pixels: how it scales them (see
    scaling_of). Raises InputError listing the tensors that do not fit.
    """
    encoder = image_encoder(_seeded(architecture), pixels)
    checkpoints.check_same_architecture(encoder.state_dict(), {source: tensors})
    encoder.load_state_dict(dict(tensors))
    return encoder


def scaling_of(architecture: str, pretrained: str | None) -> PixelScaling:
    """Return how a model scales its images, by the tag of its pretrained weights if that is one."""
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    return pixel_scaling(architecture, pretrained if pretrained in tags else None)


def whole_clip(architecture: str, tower: ImageTower) -> CLIP:
    """Make the whole CLIP of an image tower that has its text tower beside it.

    Raises InputError where it has none, or listing the tensors that do not fit.
    """
    if not tower.text_tower:
        raise InputError(f"{tower.source}: has no text tower, and prompts need one")
    clip = _seeded(architecture).eval()
    state = {f"{_VISUAL}{name}": t for name, t in tower.tensors.items()} | dict(tower.text_tower)
    checkpoints.check_same_architecture(clip.state_dict(), {tower.source: state})
    clip.load_state_dict(state)
    return clip


def image_size(architecture: str) -> int:
    """Return the side of the images that the architecture takes, in pixels.

    Raises InputError for an unknown architecture.
    """
    size = configuration(architecture)["vision_cfg"].get("image_size", 224)
    return int(size[0] if isinstance(size, list) else size)


def stated_architecture(source: str) -> str | None:
    """Read which architecture a checkpoint says it is of; None where it says nothing."""
    path = Path(source)
    if not path.is_file() or is_torch_file(path):
        return None
    return checkpoints.read_metadata(path).get("architecture")
