"""The plain way to predict windows: every clip read and embedded for itself."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from astra_jax.data.clips import read_inputs
from astra_jax.data.halves import Half
from astra_jax.data.time import Exact
from astra_jax.model import Predictions, SpottingModel


def compile_apply(model: SpottingModel) -> Callable[[Any, dict[str, Any]], Predictions]:
    """The jitted forward pass of a model over whole clips: parameters and inputs to predictions."""
    return jax.jit(lambda params, inputs: model.apply({"params": params}, inputs, train=False))


def read_windows(half: Half, starts: Sequence[Exact], clip_seconds: Exact) -> dict[str, Any]:
    """Whole clips, the model's inputs, of windows of a half that start at `starts` seconds."""
    clips = [read_inputs(half, start, clip_seconds) for start in starts]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *clips)
