"""Zero-shot classification heads from prompts."""

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from adamerge_core.errors import InputError
from adamerge_core.vision.names import class_name_faults

if TYPE_CHECKING:
    from open_clip.model import CLIP


class ZeroShotHead(nn.Module):
    """A frozen linear classifier of normalised features, without bias (AdaMerging, appendix B)."""

    weight: Tensor

    def __init__(self, weight: Tensor) -> None:
        """weight: [classes, D], already times exp(logit_scale).

        Raises InputError unless it is such floats, all finite.
        """
        super().__init__()
        shape = list(weight.shape)
        if weight.ndim != 2 or not weight.numel() or not weight.is_floating_point():
            raise InputError(f"head {weight.dtype} {shape}: must be floats [classes, D]")
        if not bool(weight.isfinite().all()):
            raise InputError(f"head {shape}: holds inf or NaN; make it again")
        self.register_buffer("weight", weight)

    def forward(self, features: Tensor) -> Tensor:
        """Classify features [N, D] of any length: logits [N, classes]."""
        return F.linear(F.normalize(features, dim=-1), self.weight)


@torch.no_grad()
def zero_shot_weight(
    clip: "CLIP",
    tokenize: Callable[[list[str]], Tensor],
    classes: Sequence[str],
    templates: Sequence[str],
) -> Tensor:
    """Make a head's weight [classes, D] float32 out of the class names' prompts.

    A row is the normalised mean of its prompts' normalised embeddings, times exp(logit_scale) of
    the CLIP, on whose device the weight is. templates: with one "{}" each, for the class name.
    Raises InputError where there is no class or template, or one is no such text.
    """
    _check(classes, templates)
    rows, device = [], clip.logit_scale.device
    for name in classes:
        prompts = tokenize([template.format(name) for template in templates]).to(device)
        rows.append(F.normalize(clip.encode_text(prompts, normalize=True).mean(dim=0), dim=0))
    return torch.stack(rows) * clip.logit_scale.exp()


def _check(classes: Sequence[str], templates: Sequence[str]) -> None:
    faults = class_name_faults([*classes])
    for name, given in (("classes", classes), ("templates", templates)):
        if isinstance(given, str) or not len(given):
            faults.append(f"{name} = {given!r}: must be a list of at least one text")
    faults += [
        f"template {text!r}: must be text that holds {{}} once, and no other brace"
        for text in templates
        if not isinstance(text, str) or text.count("{}") != 1 or len(re.findall("[{}]", text)) != 2
    ]
    if faults:
        raise InputError.listing("zero-shot head", faults, shown=20)
