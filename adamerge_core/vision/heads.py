"""Zero-shot classification heads from prompts."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

if TYPE_CHECKING:
    from open_clip.model import CLIP


class ZeroShotHead(nn.Module):
    """A frozen linear classifier of normalised features, without bias (AdaMerging, appendix B)."""

    weight: Tensor

    def __init__(self, weight: Tensor) -> None:
        """weight: [classes, D], already times exp(logit_scale)."""
        super().__init__()
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
    """
    rows, device = [], clip.logit_scale.device
    for name in classes:
        prompts = tokenize([template.format(name) for template in templates]).to(device)
        rows.append(F.normalize(clip.encode_text(prompts, normalize=True).mean(dim=0), dim=0))
    return torch.stack(rows) * clip.logit_scale.exp()
