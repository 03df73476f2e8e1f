"""A stand-in for ASTRA, which takes long to compile, where a test isn't about the model."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from astra_jax.model import Predictions, SpottingModel


class Linear(SpottingModel):
    """Scores of a position are linear in its second's columns: a row a second, two positions."""

    @nn.compact
    def __call__(self, inputs: dict[str, Any], train: bool = False) -> Predictions:
        rows = jnp.repeat(inputs["features"][0], 2, axis=1)
        scores = nn.Dense(self.config.num_classes + 1)(rows)
        return Predictions(nn.sigmoid(scores), scores, scores)
