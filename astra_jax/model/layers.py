"""Linear layers and attention with the published initial values; codes of time."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Key


def symmetric_uniform(bound: float) -> nn.initializers.Initializer:
    """Draws uniformly from [-bound, bound)."""

    def init(
        key: Key[Array, ""], shape: tuple[int, ...], dtype: Any = jnp.float32
    ) -> Float[Array, "*shape"]:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def unit_uniform(
    key: Key[Array, ""], shape: tuple[int, ...], dtype: Any = jnp.float32
) -> Float[Array, "*shape"]:
    """Draws uniformly from [0, 1); Flax's own draws doubles where JAX has 64 bits enabled."""
    return jax.random.uniform(key, shape, dtype)


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
    return nn.LayerNorm(epsilon=1e-5, dtype=dtype, name=name)


def attend(
    query: Float[Array, "*batch query head part"],
    key: Float[Array, "*batch key head part"],
    value: Float[Array, "*batch key head part"],
    mask: Bool[Array, "*batch 1 1 key"] | None = None,
    dropout_rng: Key[Array, ""] | None = None,
    dropout_rate: float = 0.0,
    deterministic: bool = True,
) -> Float[Array, "*batch query head part"]:
    """What queries see of values, as `nn.dot_product_attention` with the softmax in float32.

    Heads come before steps in all products: on a CPU they take half as long then.
    """
    query, key, value = (jnp.swapaxes(array, -2, -3) for array in (query, key, value))
    query = query / math.sqrt(query.shape[-1])
    scores = jnp.einsum("...qp,...kp->...qk", query, key).astype(jnp.float32)
    if mask is not None:
        scores = jnp.where(mask, scores, np.finfo(np.float32).min)
    weights = jax.nn.softmax(scores).astype(value.dtype)
    if not deterministic and dropout_rate > 0:
        assert dropout_rng is not None  # in training there is one
        kept = jax.random.bernoulli(dropout_rng, 1 - dropout_rate, weights.shape)
        weights = weights * (kept.astype(weights.dtype) / (1 - dropout_rate))
    seen = jnp.einsum("...qk,...kp->...qp", weights, value)
    return jnp.swapaxes(seen, -2, -3)


def attention(dim: int, heads: int, dropout: float, dtype: Any, name: str) -> nn.Module:
    """Multi-head attention as PyTorch starts it.

    The in-projection is Xavier-uniform over the joint (3 dim, dim) matrix, so its bound is
    sqrt(6 / (4 dim)); its biases and the out-projection's are zero; the out-projection's
    weights are uniform in +-1/sqrt(dim). Dropout falls on the attention weights, drawn anew
    for each clip and head. The softmax is computed in float32.
    """
    return nn.MultiHeadDotProductAttention(
        num_heads=heads,
        qkv_features=dim,
        dropout_rate=dropout,
        broadcast_dropout=False,
        attention_fn=attend,
        dtype=dtype,
        kernel_init=symmetric_uniform(math.sqrt(6 / (4 * dim))),
        out_kernel_init=symmetric_uniform(1 / math.sqrt(dim)),
        name=name,
    )


def sinusoids(times: Float[np.ndarray, " step"], dim: int) -> Float[np.ndarray, "step dim"]:
    """Sines and cosines of a clock: column pairs tick from every 2 to every 20,000 output steps.

    Args:
        times: moments inside the clip, counted in output positions, so that codes of any
            rate and the queries share one clock.
        dim: columns; the first half are sines, the second cosines.

    Source: the encodings of "Attention is all you need", section 3.5.
    """
    pairs = (dim + 1) // 2
    angles = times[:, None] / 10_000 ** (np.arange(pairs) / pairs)[None, :]
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)[:, :dim].astype(np.float32)


def code_init(kind: str, times: Float[np.ndarray, " step"]) -> nn.initializers.Initializer:
    """Initial values of learned codes: uniform in [0, 1) as published, or `sinusoids(times)`."""

    def init(
        key: Key[Array, ""], shape: tuple[int, ...], dtype: Any = jnp.float32
    ) -> Float[Array, "*shape"]:
        if kind == "sinusoidal":
            return jnp.asarray(sinusoids(times, shape[-1]), dtype)
        return unit_uniform(key, shape, dtype)

    return init


def step_times(steps: int, positions: int, covered: float = 1.0) -> Float[np.ndarray, " step"]:
    """When each of `steps` equal steps begins, in output positions.

    `covered` is the share of the clip that the steps cover (audio segments leave a rest).
    """
    return np.arange(steps) * (positions * covered / steps)
