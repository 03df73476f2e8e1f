"""3 x 3 convolutions and their gradients as products of matrices.

A tile is what a 2 x 2 of the result sees of the images: 4 x 4, two apart. Convolutions of many
channels are Winograd's F(2x2, 3x3) (Lavin and Gray, "Fast algorithms for convolutional neural
networks", 2016): 16 products a tile and pair of channels where the plain way has 36; so are the
gradients. Results differ from the plain way's by a little rounding. Of few channels the matrices
would be too thin: there a whole tile is one row. Images have even sizes.
"""

from collections.abc import Callable, Sequence
from functools import partial, reduce
from operator import add

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from astra_jax.model.pooling import Grid, Images, merge

_FEW_CHANNELS = 8

# The transforms of a tile, of a kernel and of the products, each for rows and columns.
_OF_TILE = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]])
_OF_KERNEL = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
_OF_PRODUCTS = np.array([[1, 1, 1, 0], [0, 1, -1, -1]])


def matrices_of(kernel: Float[Array, "3 3 channel_in channel_out"]) -> Grid:
    """What `corners_of` multiplies by: linear in the kernel."""
    channels_in, channels_out = kernel.shape[2:]
    if channels_in > _FEW_CHANNELS:
        of_kernel = _OF_KERNEL.astype(kernel.dtype)
        full = jnp.einsum("ai,bj,ijcd->abcd", of_kernel, of_kernel, kernel)
        return [[full[i, j] for j in range(4)] for i in range(4)]
    # Which numbers of its tile a corner sees.
    seen = [[((i, 1 - i), (j, 1 - j), (0, 0), (0, 0)) for j in (0, 1)] for i in (0, 1)]
    shape = (16 * channels_in, channels_out)
    return [[jnp.pad(kernel, widths).reshape(shape) for widths in row] for row in seen]


def corners_of(images: Images, matrices: Grid) -> Grid:
    """The corners of the convolved images (`pooling.corners`)."""
    if images.shape[-1] > _FEW_CHANNELS:
        return _combine(_OF_PRODUCTS, _each(_product, _combine(_OF_TILE, _tiles(images)), matrices))
    rows = _as_rows(images)
    return [[_product(rows, matrix) for matrix in row] for row in matrices]


def gradients(images: Images, matrices: Grid, by_corners: Grid) -> tuple[Images, Grid]:
    """The gradients by the images and the matrices of `corners_of`."""
    if images.shape[-1] > _FEW_CHANNELS:
        by_products = _combine(_OF_PRODUCTS.T, by_corners)
        by_transforms = _each(_product_by_transposed, by_products, matrices)
        by_matrices = _each(_sum_of_products, _combine(_OF_TILE, _tiles(images)), by_products)
        return _untile(_combine(_OF_TILE.T, by_transforms)), by_matrices
    terms = _each(_product_by_transposed, by_corners, matrices)
    by_rows = jnp.split(reduce(add, (term for row in terms for term in row)), 16, axis=-1)
    rows = _as_rows(images)
    by_matrices = [[_sum_of_products(rows, corner) for corner in row] for row in by_corners]
    return _untile([by_rows[4 * i : 4 * i + 4] for i in range(4)]), by_matrices


def _tiles(images: Images) -> Grid:
    """The 4 x 4 numbers of tiles, each of all tiles."""
    rows, columns = images.shape[2:4]
    padded = jnp.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0)))
    return [
        [padded[:, :, i : i + rows - 1 : 2, j : j + columns - 1 : 2] for j in range(4)]
        for i in range(4)
    ]


def _untile(tiles: Grid) -> Images:
    """The transposed of `_tiles`: what all tiles say of a number of the images, summed.

    The first of two rows of a result stands in row 1 of its tile and in row 3 of the tile before,
    the second in row 2, and in row 0 of the next tile. So do columns.
    """
    first, second, third, last = tiles
    pairs = zip(first, second, third, last, strict=True)
    rows = [(b + _moved(d, 2, 1), c + _moved(a, 2, -1)) for a, b, c, d in pairs]
    return merge(
        [[b + _moved(d, 3, 1), c + _moved(a, 3, -1)] for a, b, c, d in zip(*rows, strict=True)]
    )


def _moved(x: Array, axis: int, by: int) -> Array:
    """Moved by one place, down or up; zeros follow."""
    widths = [(0, 0, 0)] * x.ndim
    widths[axis] = (by, -by, 0)
    return lax.pad(x, jnp.zeros((), x.dtype), widths)


def _as_rows(images: Images) -> Float[Array, "clip segment half_row half_column number"]:
    return jnp.concatenate([number for row in _tiles(images) for number in row], axis=-1)


def _each(function: Callable[..., Array], *grids: Grid) -> Grid:
    return [
        [function(*entries) for entries in zip(*rows, strict=True)]
        for rows in zip(*grids, strict=True)
    ]


_product = partial(jnp.tensordot, axes=1)
_product_by_transposed = partial(jnp.tensordot, axes=((4,), (1,)))
_sum_of_products = partial(jnp.tensordot, axes=((0, 1, 2, 3), (0, 1, 2, 3)))


def _combine(weights: np.ndarray, grid: Grid) -> Grid:
    """`weights` by rows and by columns; they are 1, 0 and -1."""
    rows = [[_signed_sum(row, column) for column in zip(*grid, strict=True)] for row in weights]
    return [[_signed_sum(row, entries) for row in weights] for entries in rows]


def _signed_sum(signs: np.ndarray, entries: Sequence[Array]) -> Array:
    signed = [(sign, entry) for sign, entry in zip(signs, entries, strict=True) if sign]
    (sign, entry), *rest = signed
    total = entry if sign > 0 else -entry
    for sign, entry in rest:
        total = total + entry if sign > 0 else total - entry
    return total
