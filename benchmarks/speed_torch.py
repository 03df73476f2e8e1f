"""The steps of the PyTorch twin that benchmarks/speed.py measures. Imports no JAX."""

from collections.abc import Callable
from typing import Any

import torch
from twin.model import TorchASTRA
from twin.sizes import Sizes
from twin.training import TorchBatch, make_step

LEARNING_RATE = 5e-5


def model_step(
    mode: str, config: str, sizes: Sizes, batch: dict[str, Any]
) -> tuple[Callable[[], None], dict[str, Any]]:
    """A train step, dropout and augmentation on, or a forward pass as in an evaluation."""
    del config  # the sizes say it all
    torch.manual_seed(0)
    tensors = {k: None if v is None else torch.tensor(v) for k, v in batch.items()}
    clips = TorchBatch(rows=tensors.pop("features"), **tensors)
    model = TorchASTRA(sizes)
    told = {"parameters": sum(p.numel() for p in model.parameters())}
    if mode == "train":
        train_step = make_step(model, LEARNING_RATE)
        return lambda: _discard(train_step(clips)), told
    model.eval()

    def forward() -> None:
        with torch.inference_mode():
            model(clips.rows, clips.log_mel)

    return forward, told


def product(size: int) -> tuple[Callable[[], None], dict[str, Any]]:
    """A product of square matrices in float32."""
    matrix = torch.rand(size, size)
    return lambda: _discard(matrix @ matrix), {}


def _discard(result: Any) -> None:
    """The result was there already."""
