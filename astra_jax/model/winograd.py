"""3 x 3 convolutions and their gradients as products of matrices.

A tile is what a 2 x 2 of the result sees of the images: 4 x 4, two apart. Convolutions of many
channels are Winograd's F(2x2, 3x3) (Lavin and Gray, "Fast algorithms for convolutional neural
networks", 2016): 16 products a tile and pair of channels where the plain way has 36; so are the
gradients. Results differ from the plain way's by a little rounding. Of few channels the matrices
would be too thin: there a whole tile is one row. Images have even sizes.
"""

from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import TypeAlias

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from astra_jax.model.pooling import Grid, Images

_FEW_CHANNELS = 8

# Transforms of a tile, of a kernel and of the products: of rows and, the same, of columns.
_OF_TILE = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]], float)
_OF_KERNEL = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], float)
_OF_PRODUCTS = np.array([[1, 1, 1, 0], [0, 1, -1, -1]], float)

_ROWS, _COLUMNS = -3, -2

Numbers: TypeAlias = Float[Array, "..."]
"""Of all tiles, by clip, segment, row, column and channel; some by transformed row before."""

Matrices: TypeAlias = Float[Array, "_ _ number channel"]
"""By a tile's transformed column and row; of few channels by the corner's row and column."""


def matrices_of(kernel: Float[Array, "3 3 channel_in channel_out"]) -> Matrices:
    """What `corners_of` multiplies by: linear in the kernel."""
    channels_in, channels_out = kernel.shape[2:]
    if channels_in > _FEW_CHANNELS:
        weights = _OF_KERNEL.astype(kernel.dtype)
        return jnp.einsum("bj,ai,ijcd->bacd", weights, weights, kernel)
    # Which numbers of its tile a corner sees.
    seen = [((i, 1 - i), (j, 1 - j), (0, 0), (0, 0)) for i in (0, 1) for j in (0, 1)]
    stacked = jnp.stack([jnp.pad(kernel, widths) for widths in seen])
    return stacked.reshape(2, 2, 16 * channels_in, channels_out)


def corners_of(images: Images, matrices: Matrices) -> Grid:
    """The corners of the convolved images (`pooling.corners`)."""
    if images.shape[-1] <= _FEW_CHANNELS:
        rows = _whole_tiles(images)
        return [[jnp.tensordot(rows, matrix, 1) for matrix in row] for row in matrices]
    tiles = _transformed_tiles(images)
    flat = _product(_flat(tiles), _flat(matrices), 2, 1)
    products = flat.reshape(*tiles.shape[:-1], -1)
    columns = _signed_sums(_OF_PRODUCTS, list(products))
    by_column = [_signed_sums(_OF_PRODUCTS, list(column)) for column in columns]
    return [list(row) for row in zip(*by_column, strict=True)]


def gradients(images: Images, matrices: Matrices, by_corners: Grid) -> tuple[Images, Matrices]:
    """The gradients by the images and the matrices of `corners_of`."""
    if images.shape[-1] <= _FEW_CHANNELS:
        return _gradients_of_whole_tiles(images, matrices, by_corners)
    by_column = [_stacked(_OF_PRODUCTS.T, column) for column in zip(*by_corners, strict=True)]
    by_products = _stacked(_OF_PRODUCTS.T, by_column)
    tiles, flat = _transformed_tiles(images), _flat(by_products)
    by_matrices = _product(_flat(tiles), flat, 1, 1).reshape(matrices.shape)
    by_tiles = _product(flat, _flat(matrices), 2, 2).reshape(tiles.shape)
    by_rows = _joined(_signed_sums(_OF_TILE.T, list(by_tiles)), _COLUMNS)
    by_rows = lax.optimization_barrier(by_rows)
    return _joined(_signed_sums(_OF_TILE.T, list(by_rows)), _ROWS), by_matrices


def _flat(x: Float[Array, "4 4 *tile number"]) -> Float[Array, "16 _ number"]:
    return x.reshape(16, -1, x.shape[-1])


def _product(
    one: Float[Array, "16 _ _"], other: Float[Array, "16 _ _"], axis: int, other_axis: int
) -> Float[Array, "16 _ _"]:
    """16 products of matrices, summed over these axes.

    Of arrays with more axes XLA makes slower products, or transposes them first.
    """
    return lax.dot_general(one, other, (((axis,), (other_axis,)), ((0,), (0,))))


def _gradients_of_whole_tiles(
    images: Images, matrices: Matrices, by_corners: Grid
) -> tuple[Images, Matrices]:
    every = [0, 1, 2, 3]
    rows = _whole_tiles(images)
    by_matrices = [[jnp.tensordot(rows, x, (every, every)) for x in row] for row in by_corners]
    terms = [
        jnp.tensordot(by_corners[i][j], matrices[i, j], ((4,), (1,)))
        for i in (0, 1)
        for j in (0, 1)
    ]
    numbers = jnp.split(reduce(add, terms), 16, axis=-1)
    by_rows = [_joined(numbers[4 * i : 4 * i + 4], _COLUMNS) for i in range(4)]
    return _joined(by_rows, _ROWS), jnp.stack([jnp.stack(row) for row in by_matrices])


def _transformed_tiles(images: Images) -> Float[Array, "4 4 clip segment _ _ channel"]:
    """By column and row of the transform."""
    by_row = _stacked(_OF_TILE, _cut(_padded(images), _ROWS))
    # Computed once, not again for each of the four columns.
    by_row = lax.optimization_barrier(by_row)
    return _stacked(_OF_TILE, _cut(by_row, _COLUMNS))


def _whole_tiles(images: Images) -> Float[Array, "clip segment _ _ number"]:
    by_row = _cut(_padded(images), _ROWS)
    return jnp.concatenate([number for row in by_row for number in _cut(row, _COLUMNS)], axis=-1)


def _padded(images: Images) -> Images:
    return jnp.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0)))


def _cut(padded: Numbers, axis: int) -> list[Numbers]:
    """The first, second, third and last row (or column) of every tile, along `axis`."""
    axis += padded.ndim
    size = padded.shape[axis]
    return [lax.slice_in_dim(padded, i, size - 3 + i, 2, axis) for i in range(4)]


def _joined(numbers: Sequence[Numbers], axis: int) -> Numbers:
    """The transposed of `_cut` and padding: what all tiles say of a row (or column), summed.

    Of the two rows that a tile gives of the result the first is its second and the last of the
    tile before, the second its third and the first of the tile after.
    """
    first, second, third, last = numbers
    axis += first.ndim
    pair = second + _moved(last, axis, 1), third + _moved(first, axis, -1)
    shape = list(first.shape)
    shape[axis] *= 2
    return jnp.stack(pair, axis + 1).reshape(shape)


def _moved(x: Numbers, axis: int, by: int) -> Numbers:
    """Moved by one place, up or down, a zero in its stead."""
    widths = [(0, 0, 0)] * x.ndim
    widths[axis] = (by, -by, 0)
    return lax.pad(x, jnp.zeros((), x.dtype), widths)


def _stacked(
    weights: Float[np.ndarray, "sum entry"], entries: Sequence[Numbers]
) -> Float[Array, "sum ..."]:
    """Weighted sums as one array: one operation, where a list of sums takes one each to compile."""
    column = (-1, *(1 for _ in entries[0].shape))
    columns = weights.T.astype(entries[0].dtype)
    terms = [w.reshape(column) * entry for w, entry in zip(columns, entries, strict=True)]
    return reduce(add, terms)


def _signed_sums(
    signs: Float[np.ndarray, "sum entry"], entries: Sequence[Numbers]
) -> list[Numbers]:
    """Sums that something goes on with, one by one; `signs` are 1, 0 and -1."""
    sums = []
    for row in signs:
        (sign, entry), *rest = [(s, x) for s, x in zip(row, entries, strict=True) if s]
        total = entry if sign > 0 else -entry
        for sign, entry in rest:
            total = total + entry if sign > 0 else total - entry
        sums.append(total)
    return sums
