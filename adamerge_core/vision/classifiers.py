"""Plain image classifiers of timm, torchvision and transformers, told apart into encoder and head.

Fine-tuned classifiers share an encoder's architecture and have a head each, of as many classes as
their task. Merging and adaptation work on the encoder; the heads stay as they are.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from adamerge_core.errors import InputError
from adamerge_core.vision.heads import ZeroShotHead

_TORCHVISION_HEADS = ("fc", "classifier", "heads", "head")
"""What torchvision's models call the modules that end in the classifier."""


def classifier_name(model: nn.Module) -> str:
    """Find the name of a model's classifier, a linear layer, by the model's own definition.

    timm's models say it in their configuration, transformers' `…ForImageClassification` call it
    `classifier`, torchvision's have it last in one of a few modules. Raises InputError where there
    is none, or it is no linear layer.
    """
    name = _by_definition(model)
    layer = dict(model.named_modules()).get(name or "")
    if name is None or not isinstance(layer, nn.Linear):
        raise InputError(
            f"{type(model).__name__}: no linear classifier was found in it"
            f"{f' ({name} is {type(layer).__name__})' if name else ''}; give a classifier of timm, "
            "torchvision or transformers that ends in one"
        )
    return name


def _by_definition(model: nn.Module) -> str | None:
    config: Any = getattr(model, "pretrained_cfg", None) or getattr(model, "default_cfg", None)
    if isinstance(config, Mapping) and "classifier" in config:  # timm
        name = config["classifier"]
        return name if isinstance(name, str) else None
    for outer in _TORCHVISION_HEADS:
        module = getattr(model, outer, None)
        if isinstance(module, nn.Linear):
            return outer
        if isinstance(module, nn.Sequential):
            linear = [name for name, each in module.named_children() if isinstance(each, nn.Linear)]
            return f"{outer}.{linear[-1]}" if linear else None
    return None


def feature_encoder(model: nn.Module) -> nn.Module:
    """Take the classifier out of `model`, which then gives features [N, D] of images [N, 3, H, W]
    scaled as it expects them.

    Names in its state dict are the model's own, without those of the classifier. Always in
    evaluation mode. Raises InputError where no linear classifier is found.
    """
    parent, _, last = classifier_name(model).rpartition(".")
    setattr(model.get_submodule(parent), last, nn.Identity())
    model.register_forward_hook(_features)
    return model.eval()


def _features(model: nn.Module, inputs: Any, output: Any) -> Tensor:
    """What transformers gives is an object of several tensors."""
    found: Tensor = output if isinstance(output, Tensor) else output.logits
    return found


def split_state(
    state: Mapping[str, Tensor], classifier: str
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Split a classifier's state dict into the encoder's and the head's, `weight` and `bias`.

    Raises InputError if it has no tensors of the classifier, or not a matrix and at most a vector.
    """
    prefix = f"{classifier}."
    head = {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}
    if head.keys() - {"weight", "bias"} or "weight" not in head or head["weight"].ndim != 2:
        raise InputError(
            f"classifier {classifier}: a weight [classes, D] and at most a bias are expected; the "
            f"checkpoint has {', '.join(f'{n} {tuple(t.shape)}' for n, t in head.items())}"
        )
    return {n: t for n, t in state.items() if not n.startswith(prefix)}, head


class LinearHead(nn.Module):
    """A frozen linear classifier of features as they are, with a bias if it has one."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        """weight: [classes, D]; bias: [classes]. Raises InputError if they do not fit."""
        super().__init__()
        if weight.ndim != 2 or (bias is not None and tuple(bias.shape) != (len(weight),)):
            shape = None if bias is None else tuple(bias.shape)
            raise InputError(
                f"head: weight {tuple(weight.shape)} and bias {shape}; expected [classes, D] and "
                "[classes]"
            )
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def forward(self, features: Tensor) -> Tensor:
        """Classify features [N, D]: logits [N, classes]."""
        weight, bias = self.get_buffer("weight"), self._buffers["bias"]
        return nn.functional.linear(features, weight, bias)


def head_of(state: Mapping[str, Tensor]) -> nn.Module:
    """Make the head of a state dict: linear where it has a `bias`, else zero-shot."""
    weight = state["weight"]
    return LinearHead(weight, state["bias"]) if "bias" in state else ZeroShotHead(weight)
