"""A stand-in for ASTRA that draws numbers in training wherever ASTRA does."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from astra_jax.model import Predictions, SpottingModel


class Noisy(SpottingModel):
    """`helpers.linear.Linear` on a layer of its own, with dropout, and with rows switched off."""

    @nn.compact
    def __call__(self, inputs: dict[str, Any], train: bool = False) -> Predictions:
        rows = jnp.repeat(inputs["features"][0], 2, axis=1)
        if train:
            kept = jax.random.bernoulli(self.make_rng("augment"), 0.8, rows.shape[:2])
            rows = rows * kept[..., None]
        rows = nn.Dropout(0.2)(nn.Dense(self.config.dim)(rows), deterministic=not train)
        scores = nn.Dense(self.config.num_classes + 1)(rows)
        return Predictions(nn.sigmoid(scores), scores, scores)
