"""Linear layers with the published initial values; codes of time."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from astra_jax.model.initializers import Constant, Sinusoids, Uniform, initializer

zeros = initializer(Constant(0.0))
ones = initializer(Constant(1.0))
unit_uniform = initializer(Uniform(0.0, 1.0))


def symmetric_uniform(bound: float) -> nn.initializers.Initializer:
    """Draws uniformly from [-bound, bound)."""
    return initializer(Uniform(-bound, bound))


class Linear(nn.Module):
    """A dense layer whose weights and biases start uniform in +-1/sqrt(fan_in).

    `precision`: of the product; GPU and TPU round what they multiply unless it is the highest.
    """

    features: int
    dtype: Any = jnp.float32
    precision: jax.lax.Precision | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "*batch column"]) -> Float[Array, "*batch feature"]:
        """Applies the layer to the last axis."""
        init = symmetric_uniform(1 / math.sqrt(x.shape[-1]))
        return nn.Dense(
            self.features,
            dtype=self.dtype,
            precision=self.precision,
            kernel_init=init,
            bias_init=init,
            name="dense",
        )(x)


def output_layer(features: int, name: str) -> Linear:
    """The last linear of a head: in float32 whatever the model computes in, nothing rounded.

    In bfloat16 there are some 300 probabilities: peaks tie, and the earliest position wins.
    """
    return Linear(features, jnp.float32, jax.lax.Precision.HIGHEST, name=name)


def layer_norm(dtype: Any, name: str) -> nn.LayerNorm:
    """LayerNorm as published."""
    return nn.LayerNorm(epsilon=1e-5, dtype=dtype, bias_init=zeros, scale_init=ones, name=name)


def code_init(kind: str, times: Float[np.ndarray, " step"]) -> nn.initializers.Initializer:
    """Initial values of learned codes: uniform in [0, 1) as published, or `sinusoids(times)`."""

    if kind == "sinusoidal":
        return initializer(Sinusoids(tuple(times.tolist())))
    return unit_uniform


def step_times(steps: int, positions: int, covered: float = 1.0) -> Float[np.ndarray, " step"]:
    """When each of `steps` equal steps begins, in output positions.

    `covered` is the share of the clip that the steps cover (audio segments leave a rest).
    """
    return np.arange(steps) * (positions * covered / steps)
