"""2 x 2 max-pooling whose gradient needs a byte a number: which of the four was the largest."""

from typing import TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int8

Images: TypeAlias = Float[Array, "clip segment _ _ _"]
"""Rows, columns and channels last, of any size: two in one signature need not agree."""
Winners: TypeAlias = Int8[Array, "clip segment _ _ _"]

Grid: TypeAlias = list[list[Images]]
"""Arrays by row and column, here of the 2 x 2: every other number of images, both ways."""


def corners(images: Images) -> Grid:
    """Every other row and column, from the first or the second on; of both an even number."""
    return [[images[:, :, i::2, j::2] for j in (0, 1)] for i in (0, 1)]


def merge(found: Grid) -> Images:
    """The images with these corners."""
    clips, segments, rows, columns, channels = found[0][0].shape
    stacked = jnp.stack([jnp.stack(row, axis=4) for row in found], axis=3)
    return stacked.reshape(clips, segments, 2 * rows, 2 * columns, channels)


def pool(found: Grid, bias: Float[Array, " channel"]) -> tuple[Images, Winners]:
    """ReLU of the largest corner plus the bias, and which corner that is: 0 to 3, or -1.

    -1 where the ReLU lets no gradient through. Of equal corners the first wins, as in PyTorch.
    """
    (largest, second), below = found
    winners = jnp.zeros(largest.shape, jnp.int8)
    for number, corner in enumerate((second, *below), start=1):
        winners = jnp.where(corner > largest, jnp.int8(number), winners)
        largest = jnp.maximum(largest, corner)
    result = largest + bias
    return jax.nn.relu(result), jnp.where(result > 0, winners, jnp.int8(-1))


def unpool(gradient: Images, winners: Winners) -> Grid:
    """The gradient by the corners, from that by what `pool` gave."""
    return [[jnp.where(winners == 2 * i + j, gradient, 0) for j in (0, 1)] for i in (0, 1)]
