"""Pretrained weights of open_clip's models, by a tag or from a file, checked after the load."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from huggingface_hub.constants import HF_HUB_OFFLINE
from open_clip.model import CLIP
from open_clip.transformer import QuickGELU
from torch import Tensor, nn

from adamerge_core import checkpoints
from adamerge_core.errors import InputError
from adamerge_core.vision.architectures import Activation, with_activation
from adamerge_core.vision.clip import create_clip
from adamerge_core.vision.openai_files import NUMBERS, is_torch_script, openai_state

_PREFIXES = ("module.", "_orig_mod.")


@dataclass(frozen=True)
class PretrainedWeights:
    """Where the weights of a whole CLIP, image and text tower, come from: a tag or a file."""

    tag: str | None = None
    """One of open_clip's of the architecture, such as `openai`; read from the hub's cache."""
    file: Path | None = None
    """A state dict in open_clip's names, or the file that OpenAI published."""
    activation: Activation | None = None
    """That the weights of a file were trained with. A model with the other one computes something
    else without an error, so a file needs it said: all that goes back to OpenAI's is `quick_gelu`.
    """

    def faults(self) -> list[str]:
        """List what does not go together, a line each."""
        if (self.tag is None) == (self.file is None):
            return ["weights: give a tag of open_clip's or a file, one of the two"]
        if self.file is not None and self.activation is None and not _is_openai(self.file):
            return [
                f"weights.file = {self.file}: say which activation its weights were trained with, "
                "activation: quick_gelu (OpenAI's, and all fine-tuned from them) or gelu"
            ]
        return []


def _is_openai(file: Path) -> bool:
    return file.is_file() and is_torch_script(file)


def create_pretrained_clip(architecture: str, weights: PretrainedWeights) -> CLIP:
    """Make a CLIP and load its weights; nothing is downloaded unless HF_HUB_OFFLINE=0 says so.

    Raises InputError for an unknown architecture or tag, weights that are not there, that do not
    fit, whose activation is not the model's, or that did not arrive.
    """
    if faults := weights.faults():
        raise InputError.listing("model", faults)
    clip = create_clip(architecture)
    wanted, file = _located(architecture, weights)
    _check_activation(architecture, clip, wanted, str(weights.tag or weights.file))
    state = _read(file)
    _load(clip, state, file)
    return clip


def activation(clip: nn.Module) -> Activation:
    """Tell which activation the transformers of a model have, by the types of its modules."""
    quick = any(isinstance(module, QuickGELU) for module in clip.modules())
    return "quick_gelu" if quick else "gelu"


def _check_activation(architecture: str, clip: CLIP, wanted: Activation, source: str) -> None:
    has = activation(clip)
    if has == wanted:
        return
    raise InputError(
        f"model.architecture = {architecture!r} has {has}, and the weights {source} were trained "
        f"with {wanted}: features would be wrong without an error; take "
        f"{with_activation(architecture, wanted)!r}"
    )


@dataclass(frozen=True)
class TagOnHub:
    """What open_clip knows of a tag of pretrained weights."""

    activation: Activation
    hub_id: str
    files: tuple[str, ...]
    """Names that its file of weights may have, the first that is there being read."""


def tag_on_hub(architecture: str, tag: str) -> TagOnHub:
    """Look a tag up. Raises InputError where it is unknown, or its weights are on no hub."""
    published = _published(architecture, tag)
    if not published.get("hf_hub"):
        raise _not_on_a_hub(architecture, tag, published)
    hub_id, _, file = published["hf_hub"].rpartition("/")
    return TagOnHub(_activation_of(published), hub_id, (file,) if file else _OPEN_CLIP_FILES)


_OPEN_CLIP_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
"""What open_clip looks for in a repository whose file its list does not name."""


def _published(architecture: str, tag: str) -> dict[str, Any]:
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    if tag not in tags:
        raise InputError(
            f"weights.tag = {tag!r}: unknown for {architecture}; known are "
            f"{', '.join(tags) or 'none, so give a file'}"
        )
    return dict(open_clip.get_pretrained_cfg(architecture, tag))


def _activation_of(published: Mapping[str, Any]) -> Activation:
    return "quick_gelu" if published.get("quick_gelu") else "gelu"


def _not_on_a_hub(architecture: str, tag: str, published: Mapping[str, Any]) -> InputError:
    return InputError(
        f"weights {tag} of {architecture}: are not on a hub but at {published.get('url')}; fetch "
        "that file yourself and give it as weights.file"
    )


def _located(architecture: str, weights: PretrainedWeights) -> tuple[Activation, Path]:
    """Find the weights' activation and their file; a tag's is fetched where HF_HUB_OFFLINE=0.

    Raises InputError for an unknown tag, and weights that are not there.
    """
    if weights.file is not None:
        return weights.activation or "quick_gelu", weights.file
    tag = str(weights.tag)
    published = _published(architecture, tag)
    if HF_HUB_OFFLINE and not published.get("hf_hub"):
        raise _not_on_a_hub(architecture, tag, published)
    try:
        file = Path(open_clip.download_pretrained(published, prefer_hf_hub=True))
    except Exception as error:  # the hub's client raises many types
        raise InputError(
            f"weights {tag} of {architecture}: not in the hub's cache, and not fetched "
            f"({type(error).__name__}: {_first_line(error)}); allow the download with "
            "HF_HUB_OFFLINE=0, or give a file"
        ) from error
    return _activation_of(published), file


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0]


def _read(file: Path) -> dict[str, Tensor]:
    """Read a whole CLIP's state dict, without the prefixes that wrappers add."""
    state = openai_state(file) if is_torch_script(file) else checkpoints.load(file)
    for prefix in _PREFIXES:
        if state and all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    if not any(name.startswith("visual.") for name in state):
        raise InputError(
            f"{file}: holds no image tower in open_clip's names (visual.…); "
            f"it begins with {', '.join(sorted(state)[:3])}"
        )
    return state


def _load(clip: CLIP, state: Mapping[str, Tensor], file: Path) -> None:
    """Load a state dict, and compare the model with it afterwards."""
    wanted = clip.state_dict()
    fitting = {
        name: tensor.to(wanted[name].dtype) if name in wanted else tensor
        for name, tensor in state.items()
        if name not in NUMBERS
    }
    checkpoints.check_same_architecture(wanted, {str(file): fitting})
    clip.load_state_dict(fitting)
    loaded = clip.state_dict()
    missed = [name for name, tensor in fitting.items() if not torch.equal(loaded[name], tensor)]
    if missed:
        raise InputError.listing(f"{file}: these tensors did not arrive in the model", missed)
