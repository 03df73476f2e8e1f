"""Mel power to decibels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from astra_jax.data.audio import power_to_db

POWER = np.array([7430.77, 743.077, 1.0, 7430.77e-8, 1e-9, 0.0, 74307.7], np.float32)
DECIBELS = [0, -10, -38.7103, -80, -80, -80, 10]


@pytest.mark.parametrize("array", [np.asarray, jnp.asarray])
def test_decibels_count_from_the_reference_power_down_to_the_floor(array):
    decibels = power_to_db(array(POWER))
    assert isinstance(decibels, np.ndarray if array is np.asarray else jax.Array)
    assert decibels.dtype == np.float32
    np.testing.assert_allclose(decibels, DECIBELS, atol=1e-4)


def test_the_floor_is_an_option_and_power_below_1e_minus_10_counts_as_that():
    decibels = power_to_db(np.array([0.0, 1e-10, 1e-9], np.float32), floor_db=-200)
    np.testing.assert_allclose(decibels, [-138.7103, -138.7103, -128.7103], atol=1e-4)


def test_half_precision_is_computed_in_float32():
    decibels = power_to_db(np.array([0.0, 1.0], np.float16), floor_db=-200)
    assert decibels.dtype == np.float32
    np.testing.assert_allclose(decibels, [-138.7103, -38.7103], atol=1e-4)


def test_a_clip_does_not_depend_on_its_neighbours():
    clip = np.array([[1e-3, 1.0]], np.float32)
    with_neighbour = power_to_db(np.stack([clip, np.full_like(clip, 1e6)]))
    np.testing.assert_array_equal(with_neighbour[0], power_to_db(clip))
