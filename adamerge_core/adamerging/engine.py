"""The loss of a merged model and its gradient in the merging coefficients."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from adamerge_core.adamerging.objective import softmax_entropy
from adamerge_core.errors import InputError
from adamerge_core.task_vectors import TaskVectors


class Engine:
    """Merges into one encoder and differentiates by inner products with the task vectors.

    With theta(lambda) = theta_pre + sum_k lambda_k tau_k, the gradient of the loss in lambda_k^l is
    the inner product of its gradient in theta^l with tau_k^l. So a step merges once, treats the
    merged tensors as leaves, runs all tasks' images through them, and reads the task vectors once
    more for the inner products. The encoder's own tensors are overwritten at every merge.
    """

    def __init__(
        self,
        encoder: nn.Module,
        task_vectors: TaskVectors,
        heads: Mapping[str, nn.Module],
        micro_batch: int | None = None,
    ) -> None:
        """
        encoder: images of any form [N, ...] -> features [N, D]; its state dict has the names and
        shapes of the pretrained one. heads: per task, features [N, D] -> logits [N, classes].
        micro_batch: images per forward and backward; None takes all at once. The gradient is the
        same. Raises InputError listing what does not fit.
        """
        self._check(encoder, task_vectors, heads)
        self.encoder = encoder.eval()
        self.task_vectors = task_vectors
        self.heads = {name: heads[name].eval() for name in task_vectors.task_names}
        self.micro_batch = micro_batch
        self._parameters = dict(encoder.named_parameters())
        self._device = next(encoder.parameters()).device
        for name, parameter in self._parameters.items():
            parameter.requires_grad_(name in task_vectors.layers)
        encoder.load_state_dict(task_vectors.pretrained)

    @staticmethod
    def _check(
        encoder: nn.Module, task_vectors: TaskVectors, heads: Mapping[str, nn.Module]
    ) -> None:
        ours, theirs = encoder.state_dict(), task_vectors.pretrained
        faults = [f"the encoder has no tensor {name}" for name in theirs.keys() - ours.keys()]
        faults += [f"the pretrained model has no tensor {n}" for n in ours.keys() - theirs.keys()]
        faults += [
            f"tensor {name} is {list(ours[name].shape)} in the encoder, "
            f"{list(theirs[name].shape)} in the pretrained model"
            for name in ours.keys() & theirs.keys()
            if ours[name].shape != theirs[name].shape
        ]
        faults += [
            f"layer {name} is {stack.dtype} in the task vectors, {ours[name].dtype} in the encoder"
            for name, stack in task_vectors.layers.items()
            if name in ours and ours[name].dtype != stack.dtype
        ]
        faults += [f"task {n} has no head" for n in task_vectors.task_names if n not in heads]
        if faults:
            raise InputError.listing(
                "an encoder that does not fit its task vectors", sorted(faults)
            )

    @torch.no_grad()
    def merge(self, coefficients: Tensor) -> None:
        """Write the merged layers for `coefficients` ([K] or [L, K]) into the encoder."""
        rows = self.task_vectors.expand(coefficients)
        tensors = self.encoder.state_dict()  # shares storage with the encoder
        for name, row in zip(self.task_vectors.layers, rows, strict=True):
            tensors[name].copy_(self.task_vectors.merge_layer(name, row))

    def loss_and_gradient(
        self, coefficients: Tensor, images: Mapping[str, Tensor]
    ) -> tuple[dict[str, float], Tensor]:
        """Per task the mean entropy of its images, and d(sum over tasks)/d(coefficients).

        coefficients: [K] or [L, K]. images: per task [N_k, ...], not empty. The gradient has the
        shape of the coefficients, in float64 on the CPU.
        """
        self.merge(coefficients)
        losses = self._backward(images)
        gradient = self._inner_products()
        return losses, gradient.sum(dim=0) if coefficients.dim() == 1 else gradient

    def _backward(self, images: Mapping[str, Tensor]) -> dict[str, float]:
        """Leave the gradient of the summed losses in the encoder's parameters."""
        losses = dict.fromkeys(self.task_vectors.task_names, 0.0)
        self.encoder.zero_grad(set_to_none=True)
        everything = torch.cat([images[name] for name in losses]).to(self._device)
        for start, parts in self._chunks({name: len(images[name]) for name in losses}):
            end = start + sum(count for _, count in parts)
            features = self.encoder(everything[start:end]).split([count for _, count in parts])
            terms = {
                name: softmax_entropy(self.heads[name](part)).sum() / len(images[name])
                for (name, _), part in zip(parts, features, strict=True)
            }
            torch.stack(list(terms.values())).sum().backward()
            for name, term in terms.items():
                losses[name] += term.item()
        return losses

    def _chunks(self, counts: dict[str, int]) -> Iterator[tuple[int, list[tuple[str, int]]]]:
        """(first image, [(task, images of it)]) of every micro-batch of the concatenated images."""
        size = self.micro_batch or sum(counts.values())
        owners = [name for name, count in counts.items() for _ in range(count)]
        for start in range(0, len(owners), size):
            chunk = owners[start : start + size]
            yield start, [(name, chunk.count(name)) for name in dict.fromkeys(chunk)]

    @torch.no_grad()
    def _inner_products(self) -> Tensor:
        """<d loss / d theta^l, tau_k^l>: [L, K] float64; zero for buffers, lacking gradients."""
        rows = []
        for name, stack in self.task_vectors.layers.items():
            parameter = self._parameters.get(name)
            if parameter is None or parameter.grad is None:
                rows.append(torch.zeros(len(stack), dtype=torch.float64))
                continue
            row = torch.mv(stack.reshape(len(stack), -1), parameter.grad.reshape(-1))
            rows.append(row.double().cpu())
        return torch.stack(rows)
