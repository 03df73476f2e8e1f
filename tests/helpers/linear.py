"""A stand-in for ASTRA, which takes long to compile, where a test isn't about the model."""

from typing import Any

import jax.numpy as jnp
import pytest
from flax import linen as nn

from astra_jax import runs
from astra_jax.model import ModelConfig, Predictions
from astra_jax.runs import evaluate as evaluation_run
from astra_jax.training import gradients, state


class Linear(nn.Module):
    """Scores of a position are linear in its second's columns: a row a second, two positions."""

    config: ModelConfig

    @nn.compact
    def __call__(self, inputs: dict[str, Any], train: bool = False) -> Predictions:
        rows = jnp.repeat(inputs["features"][0], 2, axis=1)
        scores = nn.Dense(self.config.classes + 1)(rows)
        return Predictions(nn.sigmoid(scores), scores, scores)


def put_in_place(patch: pytest.MonkeyPatch) -> None:
    """Runs train and predict with `Linear`."""
    for module in (state, gradients, runs, evaluation_run):
        patch.setattr(module, "ASTRA", Linear)
    # Its start belongs to ASTRA's layers.
    patch.setattr(state, "apply_start", lambda params, config: params)
