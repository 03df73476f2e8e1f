"""Multi-head attention with the published initial values."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from astra_jax.model.dropout import Dropout
from astra_jax.model.layers import symmetric_uniform, zeros


class _Weights(nn.Module):
    """Kernel and bias of a projection, which are multiplied elsewhere, together with others."""

    shape: tuple[int, ...]
    bias_shape: tuple[int, ...]
    bound: float

    @nn.compact
    def __call__(self) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
        kernel = self.param("kernel", symmetric_uniform(self.bound), self.shape)
        return kernel, self.param("bias", zeros, self.bias_shape)


class Attention(nn.Module):
    """Multi-head attention as PyTorch starts it.

    The in-projection is Xavier-uniform over the joint (3 dim, dim) matrix, so its bound is
    sqrt(6 / (4 dim)); its biases and the out-projection's are zero; the out-projection's
    weights are uniform in +-1/sqrt(dim). Dropout falls on the attention weights, drawn anew
    for each clip and head. The softmax is computed in float32.
    """

    dim: int
    heads: int
    dropout: float
    dtype: Any

    def setup(self) -> None:
        split = self.heads, self.dim // self.heads
        bound = math.sqrt(6 / (4 * self.dim))
        self.query, self.key, self.value = (
            _Weights((self.dim, *split), split, bound) for _ in range(3)
        )
        self.out = _Weights((*split, self.dim), (self.dim,), 1 / math.sqrt(self.dim))
        self.drop = Dropout(self.dropout)

    def __call__(
        self,
        x: Float[Array, "*batch query dim"],
        memory: Float[Array, "*batch key dim"] | None = None,
        present: Bool[Array, "*batch key"] | None = None,
        train: bool = False,
    ) -> Float[Array, "*batch query dim"]:
        """Each step of x looks at those of `memory` (None: of x itself) that are there."""
        # What is projected alike is projected in one product: it is the larger, and there are less.
        if memory is None:
            query, key, value = self._project(x, self.query(), self.key(), self.value())
        else:
            (query,) = self._project(x, self.query())
            key, value = self._project(memory, self.key(), self.value())
        query = query / math.sqrt(query.shape[-1])
        scores = jnp.einsum("...qp,...kp->...qk", query, key).astype(jnp.float32)
        if present is not None:
            scores = jnp.where(present[..., None, None, :], scores, np.finfo(np.float32).min)
        weights = self.drop(jax.nn.softmax(scores).astype(self.dtype), train)
        looked = jnp.swapaxes(jnp.einsum("...qk,...kp->...qp", weights, value), -2, -3)
        kernel, bias = (array.astype(self.dtype) for array in self.out())
        return jnp.einsum("...qhp,hpd->...qd", looked, kernel) + bias

    def _project(
        self,
        x: Float[Array, "*batch step dim"],
        *weights: tuple[Float[Array, "dim head part"], Float[Array, "head part"]],
    ) -> list[Float[Array, "*batch head step part"]]:
        """The products with all weights; heads before steps: on a CPU what follows is faster."""
        kernels, biases = zip(*weights, strict=True)
        kernel, bias = (
            jnp.concatenate(arrays, axis=-2).astype(self.dtype) for arrays in (kernels, biases)
        )
        projected = jnp.einsum("...ld,dhp->...lhp", x, kernel) + bias
        return jnp.split(jnp.swapaxes(projected, -2, -3), len(weights), axis=-3)
