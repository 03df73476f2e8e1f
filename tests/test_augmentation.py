"""Temporal dropout and temporal switch (section 3.4), in training only."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.models import SMALL, predict, random_inputs, random_params

from astra_jax.model import ASTRA
from astra_jax.model.embeddings import temporal_dropout, temporal_switch_order


def test_temporal_switch_swaps_neighbours_and_loses_no_step():
    order = np.asarray(temporal_switch_order(jax.random.key(0), 400, 51, 0.3))
    np.testing.assert_array_equal(np.sort(order, axis=1), np.tile(np.arange(51), (400, 1)))
    moves = order - np.arange(51)
    assert set(np.unique(moves)) == {-1, 0, 1}
    # A step forward is always answered by its neighbour's step back.
    rows, columns = np.nonzero(moves == 1)
    assert (moves[rows, columns + 1] == -1).all()
    # Swap probability r visits 1 / (1 + r) of the steps: r / (1 + r) swaps a step.
    assert (moves == 1).mean() == pytest.approx(0.3 / 1.3 * 50 / 51, rel=0.05)
    assert len({tuple(row) for row in order.tolist()}) > 390


def test_a_sure_switch_swaps_every_pair():
    order = np.asarray(temporal_switch_order(jax.random.key(0), 1, 7, 1.0))
    np.testing.assert_array_equal(order[0], [1, 0, 3, 2, 5, 4, 6])


def test_temporal_dropout_replaces_whole_steps_by_the_learned_vector():
    steps, learned = jnp.ones((50, 40, 3)), jnp.array([5.0, 6.0, 7.0])
    out = np.asarray(temporal_dropout(jax.random.key(0), steps, learned, 0.5))
    replaced = (out == np.asarray(learned)).all(axis=2)
    kept = (out == 1).all(axis=2)
    assert (replaced | kept).all()
    assert replaced.mean() == pytest.approx(0.5, abs=0.05)
    assert len({tuple(row) for row in replaced.tolist()}) == 50


def test_augmentation_and_dropout_act_in_training_only():
    config = dataclasses.replace(SMALL, encoder_layers=1, decoder_layers=1)
    params = jax.tree.map(jnp.asarray, random_params(ASTRA(config)))
    inputs = random_inputs(config, 2)

    @jax.jit
    def train(seed):
        keys = jax.random.split(jax.random.key(seed))
        rngs = {"dropout": keys[0], "augment": keys[1]}
        return ASTRA(config).apply({"params": params}, inputs, train=True, rngs=rngs).probabilities

    np.testing.assert_array_equal(train(1), train(1))
    assert np.any(train(1) != train(2))
    first, second = (predict(config, params, inputs).probabilities for _ in range(2))
    np.testing.assert_array_equal(first, second)
