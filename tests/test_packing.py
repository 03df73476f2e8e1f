"""Many arrays computed as few."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from astra_jax.config import paper
from astra_jax.training.optimizer import OptimizerConfig, make_optimizer
from astra_jax.training.packing import pack, unpack


def tree(seed):
    rng = np.random.default_rng(seed)
    shapes = {"a": (3, 4), "b": {"c": (5,), "d": (2, 6), "e": None}, "f": (), "g": (12,)}
    return jax.tree.map(
        lambda shape: jnp.asarray(rng.normal(size=shape), jnp.float32),
        shapes,
        is_leaf=lambda leaf: isinstance(leaf, tuple),
    )


def test_unpacking_gives_what_was_packed():
    # From 12 numbers on an array stays by itself; none, some, and all are put together.
    for large, count in ((1, 5), (12, 4), (13, 1)):
        packed = pack(tree(0), large)
        assert len(packed) == count
        back = unpack(packed, tree(1), large)
        jax.tree.map(np.testing.assert_array_equal, back, tree(0))


def test_the_optimiser_does_to_what_is_packed_what_it_does_to_the_tree():
    section = paper().optimizer.to_dict() | {"weight_decay": 0.1, "clip_norm": 0.5}
    optimizer = make_optimizer(OptimizerConfig.from_config(section, 50, 8), 10)
    params = tree(0)
    for large in (12, 13):
        plain, packed = optimizer.init(params), optimizer.init(pack(params, large))
        ours = theirs = params
        for seed in (1, 2, 3):
            updates, plain = optimizer.update(tree(seed), plain, ours)
            ours = optax.apply_updates(ours, updates)
            updates, packed = optimizer.update(pack(tree(seed), large), packed, pack(theirs, large))
            theirs = optax.apply_updates(theirs, unpack(updates, theirs, large))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), ours, theirs)
