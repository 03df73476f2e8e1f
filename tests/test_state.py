"""One training step: the moving average of the weights beside them."""

import dataclasses
import functools

import jax
import numpy as np
import optax
import pytest
from helpers.linear import Linear
from helpers.models import LOSS, TINY, random_batch

from astra_jax.devices import make_mesh
from astra_jax.model import SourceShape
from astra_jax.training.state import init_state
from astra_jax.training.step import make_train_step

MODEL = Linear(dataclasses.replace(TINY, sources=(SourceShape(2, (3,)),)))


def batch():
    return random_batch(MODEL.config, clips=2)


@functools.cache
def program(decay):
    """A compiled step, and the state before the first one as arrays of the host."""
    mesh, optimizer = make_mesh(jax.devices()[:1]), optax.sgd(0.1, momentum=0.9)
    state = init_state(MODEL, optimizer, 0, mesh, averaged=decay > 0)
    step = make_train_step(MODEL, LOSS, optimizer, 10, 0, mesh, decay)
    return step.lower(state, batch()).compile(), jax.device_get(state)


def states(decay, *batches):
    """The state before and after each step, and what the last one told."""
    step, start = program(decay)
    found, told, state = [start], None, jax.device_put(start, jax.devices()[0])
    for of_step in batches:
        state, told = step(state, of_step)
        found.append(jax.device_get(state))
    return found, jax.device_get(told)


def kernel(params):
    return params["Dense_0"]["kernel"]


def test_the_average_follows_the_parameters():
    found, _ = states(0.15, batch(), batch(), batch())
    kernels = [kernel(state.params) for state in found]
    expected = kernels[0]
    # (1 + step) / (10 + step) as long as that is less: 0.1, then 2/11 is more than 0.15.
    for value, decay in zip(kernels[1:], (0.1, 0.15, 0.15), strict=True):
        expected = decay * expected + (1 - decay) * value
    average = kernel(found[-1].average)
    np.testing.assert_allclose(average, expected, rtol=1e-5, atol=1e-7)
    assert np.abs(average - kernels[-1]).max() > 0


def test_the_average_is_what_predicts():
    with_average, without = (states(decay, batch())[0][-1] for decay in (0.15, 0.0))
    assert with_average.eval_params is with_average.average
    assert without.average is None and without.eval_params is without.params
    # Keeping an average changes nothing of the training itself.
    for ours, theirs in zip(
        jax.tree.leaves(with_average.params), jax.tree.leaves(without.params), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def spoiled(key, value):
    array = batch()[key]
    array = tuple(x + np.float32(value) for x in array) if key == "features" else array + value
    return batch() | {key: array}


@pytest.mark.parametrize(
    ("key", "value"),
    # The loss is not finite; it is, and the gradients' norm overflows.
    [("features", np.nan), ("features", np.inf), ("displacements", np.float32(1e17))],
)
def test_a_step_that_is_not_finite_changes_nothing_but_the_counts(key, value):
    (_, before, after), told = states(0.15, batch(), spoiled(key, value))
    assert not np.isfinite(told.losses[0]) or key == "displacements"
    kept = (before.params, before.optimizer, before.average, before.loss_sums)
    found = (after.params, after.optimizer, after.average, after.loss_sums)
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(kept), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert int(after.step) == 2 and after.skipped.tolist() == told.skipped.tolist() == [1, 1, 1]


def test_skipped_steps_are_counted_in_the_epoch_in_a_row_and_in_all():
    bad, good = spoiled("features", np.nan), batch()
    found, _ = states(0.15, bad, bad, good, bad, *[good] * 5, bad, bad)
    counts = [state.skipped.tolist() for state in found[1:]]
    # The epoch has ten steps.
    assert counts[:4] == [[1, 1, 1], [2, 2, 2], [2, 0, 2], [3, 1, 3]]
    assert counts[8:] == [[3, 0, 3], [4, 1, 4], [1, 2, 5]]
