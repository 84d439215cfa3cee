"""Linear heads fitted on the features of an encoder (linear probes)."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

PENALTY = 0.3
"""Of the square of a linear probe's weights: with hardly any, a probe on few images is right about
all of them, and leaves nothing for the image tower to learn."""

_PROBE_STEPS = 200


@torch.no_grad()
def features(encoder: nn.Module, batches: Iterable[Tensor]) -> Tensor:
    """Compute the features [N, D] float32 of images, batch by batch, on the CPU."""
    encoder.eval()
    return torch.cat([encoder(batch).float().cpu() for batch in batches])


def fit_probe(
    found: Tensor, labels: Tensor, classes: int, penalty: float = PENALTY
) -> tuple[Tensor, Tensor]:
    """Fit multinomial logistic regression on features: weight [classes, D], bias [classes].

    found: [N, D] float32; labels: [N] int64. Features are standardised for the fit, and the head
    takes them as they are. L-BFGS minimises the mean loss + penalty |W|^2 / 2.
    """
    mean, deviation = found.mean(dim=0), found.std(dim=0).clamp_min(1e-6)
    inputs = (found - mean) / deviation
    weight = torch.zeros(classes, found.shape[1], requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=_PROBE_STEPS, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        fit = F.cross_entropy(F.linear(inputs, weight, bias), labels)
        value = fit + penalty * weight.square().sum() / 2
        value.backward()
        return value

    optimizer.step(loss)
    scaled = (weight / deviation).detach()
    return scaled, (bias - scaled @ mean).detach()
