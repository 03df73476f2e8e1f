"""VGGish's convolutions on a CPU: block by block of segments, as products of matrices.

The tiles of a block (`winograd`) stay in the processor's caches, and take no memory to speak of.
Clips may be split over devices; a block holds some segments of every clip. Everything is computed
in float32 at least.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from astra_jax.model.pooling import Images, Winners, corners, merge, pool, unpool
from astra_jax.model.winograd import corners_of, gradients, matrices_of

Part: TypeAlias = Images | Winners

# Of the tiles of a block and their products; anything from 4 to 64 MB does.
_BLOCK_BYTES = 2**25


def forward(
    images: Images,
    kernel: Float[Array, "3 3 channel_in channel_out"],
    bias: Float[Array, " channel_out"],
    pooled: bool,
) -> tuple[Images, Images | Winners]:
    """The result of `convolution.convolve` for images of even sizes, and what it keeps of it."""
    clips, segments, rows, columns, _ = images.shape
    wide = _wide(images)
    matrices = matrices_of(kernel.astype(wide))

    def compute(part: Images) -> tuple[list[Part], tuple[()]]:
        found = corners_of(part.astype(wide), matrices)
        if pooled:
            result, winners = pool(found, bias.astype(wide))
            return [result.astype(images.dtype), winners], ()
        return [jax.nn.relu(merge(found) + bias.astype(wide)).astype(images.dtype)], ()

    size = (rows // 2, columns // 2) if pooled else (rows, columns)
    types = [images.dtype, jnp.int8] if pooled else [images.dtype]
    empty = [jnp.zeros((clips, segments, *size, bias.size), dtype) for dtype in types]
    results, _ = _by_blocks(compute, [images], _segments_of(images, kernel), empty, ())
    return results[0], results[-1]


def backward(
    images: Images,
    kernel: Float[Array, "3 3 channel_in channel_out"],
    kept: Images | Winners,
    gradient: Images,
    pooled: bool,
) -> tuple[Images, Float[Array, "3 3 channel_in channel_out"]]:
    """The gradients by the images and by the kernel, from that by the result."""
    wide = _wide(images)
    matrices, by_kernel = jax.vjp(matrices_of, kernel.astype(wide))

    def compute(part: Images, kept: Images | Winners, gradient: Images) -> tuple[list[Part], Any]:
        wide_gradient = gradient.astype(wide)
        if pooled:
            by_corners = unpool(wide_gradient, kept)
        else:
            by_corners = corners(jnp.where(kept > 0, wide_gradient, 0))
        by_part, by_matrices = gradients(part.astype(wide), matrices, by_corners)
        return [by_part.astype(images.dtype)], by_matrices

    parts, size = [images, kept, gradient], _segments_of(images, kernel)
    empty, zeros = [jnp.zeros_like(images)], jnp.zeros_like(matrices)
    (by_images,), by_matrices = _by_blocks(compute, parts, size, empty, zeros)
    return by_images, by_kernel(by_matrices)[0].astype(kernel.dtype)


def _wide(images: Images) -> Any:
    return jnp.promote_types(images.dtype, jnp.float32)


def _segments_of(images: Images, kernel: Float[Array, "3 3 _ _"]) -> int:
    """How many segments make a block: a divisor of all."""
    clips, segments, rows, columns, _ = images.shape
    # Tiles overlap, so they are four times the images; their products as much of the result.
    segment_bytes = 16 * clips * rows * columns * sum(kernel.shape[2:])
    fitting = max(1, _BLOCK_BYTES // segment_bytes)
    return max(n for n in range(1, segments + 1) if segments % n == 0 and n <= fitting)


def _by_blocks(
    compute: Callable[..., tuple[list[Part], Any]],
    arrays: Sequence[Part],
    size: int,
    results: list[Part],
    sums: Any,
) -> tuple[list[Part], Any]:
    """What `compute` makes of every `size` segments of arrays, written into `results`; summed up.

    It gives both: the block's part of each of the results, and terms of the sums.
    """

    def step(i: Any, done: tuple[list[Part], Any]) -> tuple[list[Part], Any]:
        start = i * size
        parts, terms = compute(*(lax.dynamic_slice_in_dim(a, start, size, 1) for a in arrays))
        filled = [
            lax.dynamic_update_slice_in_dim(whole, part, start, 1)
            for whole, part in zip(done[0], parts, strict=True)
        ]
        return filled, jax.tree.map(jnp.add, done[1], terms)

    return lax.fori_loop(0, arrays[0].shape[1] // size, step, (results, sums))
