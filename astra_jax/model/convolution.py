"""A 3 x 3 convolution, the pooling after it and the ReLU: one operation with its own gradient.

Kept for the gradient are the input and, of what was pooled, which of the four was the largest, in
a byte. The ReLU follows the pooling, where a quarter of the numbers is left; its place makes no
difference, to gradients neither: where the largest of four is positive it is the same before.

On a CPU the convolutions are the products of `winograd`; elsewhere, and for odd sizes, XLA's own
(on a GPU cuDNN's). Which of them is settled when a program is lowered for its platform. There is
no forward-mode differentiation, and no second derivative.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

from astra_jax.model import blocks
from astra_jax.model.layers import symmetric_uniform
from astra_jax.model.pooling import Images, Winners, corners, pool


class Convolution(nn.Module):
    """`convolve` with its kernel and bias, which start uniform in +-1/sqrt(fan_in)."""

    features: int
    pooled: bool
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: Images) -> Images:
        """Convolves, and pools if `pooled`; computes in `dtype`."""
        channels = images.shape[-1]
        init = symmetric_uniform(1 / math.sqrt(9 * channels))
        kernel = self.param("kernel", init, (3, 3, channels, self.features))
        bias = self.param("bias", init, (self.features,))
        inputs = (x.astype(self.dtype) for x in (images, kernel, bias))
        return convolve(*inputs, self.pooled)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def convolve(
    images: Images,
    kernel: Float[Array, "3 3 channel_in channel_out"],
    bias: Float[Array, " channel_out"],
    pooled: bool,
) -> Images:
    """Convolves padded images, pools 2 x 2 if `pooled` (a last odd row or column is lost), ReLU."""
    result, _ = _forward(images, kernel, bias, pooled)
    return result


def _forward(images: Images, kernel: Any, bias: Any, pooled: bool) -> tuple[Images, Any]:
    """The result, and what of it the gradient needs: pooled the winners, else itself."""
    return _on_platform(
        partial(blocks.forward, pooled=pooled),
        partial(_plain_forward, pooled=pooled),
        (images, kernel, bias),
    )


def _forward_rule(images: Images, kernel: Any, bias: Any, pooled: bool) -> tuple[Images, Any]:
    result, kept = _forward(images, kernel, bias, pooled)
    return result, (images, kernel, kept)


def _backward_rule(pooled: bool, residuals: Any, gradient: Images) -> tuple[Images, Any, Any]:
    images, kernel, kept = residuals
    by_images, by_kernel = _on_platform(
        partial(blocks.backward, pooled=pooled),
        partial(_plain_backward, pooled=pooled),
        (images, kernel, kept, gradient),
    )
    open_ = kept >= 0 if pooled else kept > 0
    by_bias = jnp.sum(jnp.where(open_, gradient, 0), axis=(0, 1, 2, 3))
    return by_images, by_kernel, by_bias


convolve.defvjp(_forward_rule, _backward_rule)


def _on_platform(cpu: Callable[..., Any], others: Callable[..., Any], args: Any) -> Any:
    rows, columns = args[0].shape[2:4]
    if rows % 2 or columns % 2:
        return others(*args)
    return lax.platform_dependent(*args, cpu=cpu, default=others)


def _plain(
    images: Images, kernel: Float[Array, "3 3 channel_in channel_out"]
) -> Float[Array, "clip segment row column channel_out"]:
    # Channels last: how cuDNN wants them in half precision, so nothing is transposed for it.
    layout = ("NHWC", "HWIO", "NHWC")
    flat = images.reshape(-1, *images.shape[2:])
    full = lax.conv_general_dilated(flat, kernel, (1, 1), "SAME", dimension_numbers=layout)
    return full.reshape(*images.shape[:4], -1)


def _plain_forward(images: Images, kernel: Any, bias: Any, pooled: bool) -> tuple[Images, Any]:
    full = _plain(images, kernel)
    if pooled:
        rows, columns = images.shape[2:4]
        return pool(corners(full[:, :, : rows // 2 * 2, : columns // 2 * 2]), bias)
    result = jax.nn.relu(full + bias)
    return result, result


def _plain_backward(
    images: Images, kernel: Any, kept: Images | Winners, gradient: Images, pooled: bool
) -> tuple[Images, Any]:
    if pooled:
        by_full = _spread(gradient, kept, *images.shape[2:4])
    else:
        by_full = jnp.where(kept > 0, gradient, 0)
    return jax.vjp(_plain, images, kernel)[1](by_full)


def _spread(gradient: Images, winners: Winners, rows: int, columns: int) -> Images:
    """Each number of a gradient where its winner stood among `rows` x `columns`."""
    # A comparison at each place of the four: on a GPU one pass, where a scatter takes many.
    places = jnp.arange(4, dtype=jnp.int8).reshape(2, 1, 2, 1)
    at = (..., slice(None), None, slice(None), None, slice(None))
    full = jnp.where(winners[at] == places, gradient[at], 0)
    clips, segments, half_rows, _, half_columns, _, channels = full.shape
    full = full.reshape(clips, segments, 2 * half_rows, 2 * half_columns, channels)
    lost = ((0, rows - 2 * half_rows), (0, columns - 2 * half_columns))
    return jnp.pad(full, ((0, 0), (0, 0), *lost, (0, 0)))
