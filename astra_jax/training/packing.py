"""Few arrays in the place of many: the small ones in one vector."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Shaped

# From so many numbers on an array stays as it is: what is saved by one program for many arrays is
# less than what copying them into one costs.
LARGE = 2**19

Packed = list[Shaped[Array, "..."]]


def pack(tree: Any, large: int = LARGE) -> Packed:
    """The arrays of a tree that are large, then all others in one vector; for use inside `jax.jit`.

    Arrays of one type alone. An optimiser that treats each number by itself, or by the norm of
    all, does the same to these as to the tree, in a few kernels instead of a few for each array.
    """
    leaves = jax.tree.leaves(tree)
    small = [leaf.ravel() for leaf in leaves if leaf.size < large]
    kept = [leaf for leaf in leaves if leaf.size >= large]
    return [*kept, jnp.concatenate(small)] if small else kept


def unpack(packed: Packed, like: Any, large: int = LARGE) -> Any:
    """The tree that `pack` made `packed` of, whose structure and shapes are those of `like`."""
    leaves, structure = jax.tree.flatten(like)
    kept, start, unpacked = iter(packed), 0, []
    for leaf in leaves:
        if leaf.size >= large:
            unpacked.append(next(kept))
        else:
            piece = packed[-1][start : start + leaf.size]
            unpacked.append(piece.reshape(leaf.shape))
            start += leaf.size
    return jax.tree.unflatten(structure, unpacked)
