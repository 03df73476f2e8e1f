"""The generator of dropout and augmentation: what its numbers must not show."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from astra_jax.devices import make_mesh
from astra_jax.training.random_bits import cheap_key

KEY = cheap_key(jax.random.key(1))


def uniform(key, shape):
    return np.asarray(jax.jit(jax.random.uniform, static_argnums=1)(key, shape), np.float64)


def test_numbers_are_uniform():
    found = uniform(KEY, (1000, 2000))
    counts, _ = np.histogram(found, 1000, (0, 1))
    chi_squared = np.square(counts - 2000).sum() / 2000
    assert abs(chi_squared - 999) < 5 * np.sqrt(2 * 999)
    # Each bit of a number is set half of the time.
    bits = np.asarray(jax.random.bits(KEY, (1_000_000,)))
    shares = [np.mean(bits >> bit & 1) for bit in range(32)]
    assert shares == pytest.approx([0.5] * 32, abs=5 * 0.5 / 1000)


@pytest.mark.parametrize("distance", [1, 2, 64, 100, 512, 2048, 4096])
def test_numbers_say_nothing_of_others_in_the_same_draw(distance):
    found = uniform(KEY, (1_000_000,))
    assert abs(np.corrcoef(found[:-distance], found[distance:])[0, 1]) < 5 / 1000


def test_draws_of_neighbouring_steps_and_of_other_modules_are_independent():
    """Keys that differ in a bit, as those of steps and of numbered modules do."""
    keys = [KEY]
    keys += [cheap_key(jax.random.fold_in(jax.random.key(1), step)) for step in (0, 1, 2)]
    keys += [jax.random.fold_in(KEY, data) for data in (0, 1, 2, 3, 2**31)]
    keys += list(jax.random.split(KEY, 3))
    keys += [jax.random.fold_in(jax.random.fold_in(KEY, a), b) for a, b in ((1, 2), (2, 1))]
    correlations = np.corrcoef([uniform(key, (300_000,)) for key in keys])
    np.fill_diagonal(correlations, 0)
    assert np.abs(correlations).max() < 5 / np.sqrt(300_000)


def test_the_upper_bits_repeat_themselves_neither_within_a_draw_nor_in_others():
    """The lower ones do, every 2^17 numbers and more: what is drawn by them must not matter."""
    size, others = 2**21, [jax.random.fold_in(KEY, data) for data in (0, 1, 2**31)]
    bits = np.asarray(jax.random.bits(KEY, (size,), np.uint32))
    pairs = [(bits[: -(2**k)], bits[2**k :]) for k in (4, 8, 12, 16, 17, 18, 19, 20)]
    pairs += [(bits, np.asarray(jax.random.bits(key, (size,), np.uint32))) for key in others]
    for ours, theirs in pairs:
        differ = ours ^ theirs
        shares = [np.mean(differ >> bit & 1) for bit in range(16, 32)]
        assert shares == pytest.approx([0.5] * 16, abs=5 * 0.5 / np.sqrt(differ.size))


def test_a_draw_is_the_same_on_any_number_of_devices():
    """Dropout of a batch that is split over the devices is that of one device."""
    mesh = make_mesh()
    split = NamedSharding(mesh, PartitionSpec("data"))
    shape = (mesh.size, 6, 10)
    spread = jax.jit(lambda key: jax.random.bits(key, shape), out_shardings=split)(KEY)
    assert len(spread.sharding.device_set) == mesh.size
    np.testing.assert_array_equal(spread, jax.random.bits(KEY, shape))


def test_narrower_numbers_are_uniform_too():
    for dtype in (jnp.uint8, jnp.uint16):
        bits = np.asarray(jax.random.bits(KEY, (100_000,), dtype))
        assert bits.dtype == dtype
        assert bits.mean() / np.iinfo(dtype).max == pytest.approx(0.5, abs=0.005)
