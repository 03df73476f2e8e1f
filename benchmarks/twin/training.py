"""The published losses and train step in PyTorch, for the twin."""

import dataclasses
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional
from twin.model import TorchASTRA

_EPSILON = 7e-5
_CLASSIFICATION_WEIGHT = 100.0
_ERROR_WEIGHT = 0.3
# Output positions by which the displacement's radius is larger than the class target's.
_MASK_RADIUS = 2


@dataclasses.dataclass(frozen=True)
class TorchBatch:
    """Inputs and targets of clips."""

    rows: Float[Tensor, "clip row column"]
    log_mel: Float[Tensor, "clip frame mel"] | None
    class_targets: Float[Tensor, "clip position class"]
    displacements: Float[Tensor, "clip position class"]
    displacement_mask: Bool[Tensor, "clip position class"]


def total_loss(model: TorchASTRA, batch: TorchBatch) -> Float[Tensor, ""]:
    """Focal cross-entropy times 100 plus the displacement's loss (section 3.5, as published)."""
    probabilities, mean, log_variance = model(batch.rows, batch.log_mel)
    targets = batch.class_targets
    terms = targets * torch.log(probabilities + _EPSILON)
    terms = terms + (1 - targets) * torch.log(1 - probabilities + _EPSILON)
    classification = -((targets - probabilities).abs() * terms).mean()
    error = (batch.displacements - mean).square()
    if log_variance is not None:
        error = _ERROR_WEIGHT * error * torch.exp(-log_variance)
        error = error + (1 - _ERROR_WEIGHT) * log_variance
    reach = functional.max_pool1d(
        targets.transpose(1, 2), 2 * _MASK_RADIUS + 1, stride=1, padding=_MASK_RADIUS
    ).transpose(1, 2)
    clips, positions, _ = targets.shape
    displacement = (error * reach * batch.displacement_mask).sum() / (clips * positions)
    return _CLASSIFICATION_WEIGHT * classification + displacement


def make_step(model: TorchASTRA, learning_rate: float) -> Callable[[TorchBatch], float]:
    """A train step: forward, loss, backward, Adam with AMSGrad and weight decay; gives the loss.

    The fused Adam, which makes one pass over the parameters: PyTorch's fastest on a CPU.
    """
    optimizer = torch.optim.Adam(
        model.parameters(), lr=learning_rate, weight_decay=1e-5, amsgrad=True, fused=True
    )

    def step(batch: TorchBatch) -> float:
        optimizer.zero_grad()
        loss = total_loss(model, batch)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step
