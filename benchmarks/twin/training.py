"""The published losses and train step in PyTorch, for the twin."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

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

    @classmethod
    def of(cls, arrays: dict[str, Any], device: torch.device) -> TorchBatch:
        """NumPy's arrays on a device; the rows are those of the only source."""
        tensors = {
            name: None if array is None else torch.tensor(array, device=device)
            for name, array in arrays.items()
        }
        return cls(rows=tensors.pop("features"), **tensors)


def predict(
    model: TorchASTRA, batch: TorchBatch, half: torch.dtype | None = None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """What the model says, in float32; `half`: what autocast computes in, None for none."""
    with torch.autocast(batch.rows.device.type, half, enabled=half is not None):
        probabilities, mean, log_variance = model(batch.rows, batch.log_mel)
    return (
        probabilities.float(),
        mean.float(),
        None if log_variance is None else log_variance.float(),
    )


def total_loss(
    model: TorchASTRA, batch: TorchBatch, half: torch.dtype | None = None
) -> Float[Tensor, ""]:
    """Focal cross-entropy times 100 plus the displacement's loss (section 3.5, as published)."""
    probabilities, mean, log_variance = predict(model, batch, half)
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


def make_step(
    model: TorchASTRA,
    learning_rate: float,
    half: torch.dtype | None = None,
    compiled: bool = False,
) -> Callable[[TorchBatch], Float[Tensor, ""]]:
    """A train step: forward, loss, backward, Adam with AMSGrad and weight decay; gives the loss.

    The fused Adam, which makes one pass over the parameters, is PyTorch's fastest. `compiled`:
    `torch.compile` of all but the optimiser, in one graph. The loss stays on the device: reading
    it waits for the step.
    """
    loss_of = torch.compile(total_loss, fullgraph=True) if compiled else total_loss
    optimizer = torch.optim.Adam(
        model.parameters(), lr=learning_rate, weight_decay=1e-5, amsgrad=True, fused=True
    )

    def step(batch: TorchBatch) -> Float[Tensor, ""]:
        optimizer.zero_grad()
        loss = loss_of(model, batch, half)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step
