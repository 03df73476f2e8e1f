"""Dropout."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Key


def drop(key: Key[Array, ""], x: Float[Array, "*shape"], rate: float) -> Float[Array, "*shape"]:
    """Zeros with probability `rate`, below 1, and what is left divided by 1 - rate.

    Whole numbers are compared: the uniform floats of `jax.random.bernoulli` are a step more.
    """
    kept = 1 - rate
    below = np.uint32(min(round(kept * 2**32), 2**32 - 1))
    return jnp.where(jax.random.bits(key, x.shape, np.uint32) < below, x / kept, 0)


class Dropout(nn.Module):
    """`drop` in training, drawn from the rng stream `dropout`."""

    rate: float

    @nn.compact
    def __call__(self, x: Float[Array, "*shape"], train: bool) -> Float[Array, "*shape"]:
        """Drops where `train`; else gives x."""
        if not train or self.rate == 0:
            return x
        return drop(self.make_rng("dropout"), x, self.rate)
