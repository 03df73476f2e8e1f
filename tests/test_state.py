"""One training step: the moving average of the weights beside them."""

import dataclasses
import functools

import jax
import numpy as np
import optax
import pytest
from helpers.linear import Linear
from helpers.models import LOSS, TINY, random_batch
from helpers.noisy import Noisy

from astra_jax.devices import make_mesh
from astra_jax.model import ASTRA, SourceShape
from astra_jax.training.optimizer import OptimizerConfig, make_optimizer
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
    step = make_train_step(MODEL, LOSS, optimizer, 10, mesh, decay)
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


def test_a_masked_displacement_that_overflows_takes_no_step_away():
    """The log variance of a class without targets: its error would be divided by exp(-200)."""
    step, start = program(0.0)
    start = jax.tree.map(np.copy, start)
    bias = start.params["Dense_0"]["bias"]
    bias[1] = -200.0
    masked = batch()
    masked["displacement_mask"][..., 1] = False
    masked["class_targets"][..., 1] = 0.0
    state, told = step(jax.device_put(start, jax.devices()[0]), masked)
    assert np.isfinite(told.losses).all() and told.skipped.tolist() == [0, 0, 0]
    after = state.params["Dense_0"]["bias"]
    assert (
        np.isfinite(after).all()
        and after[1] == -200.0
        and (np.asarray(after) != bias).tolist() == [True, False, True]
    )


@pytest.mark.parametrize("amsgrad", [True, False])
def test_state_and_step_are_of_32_bits_with_64_enabled(amsgrad):
    """Whatever the caller has enabled a step gives the state that it was given, leaf by leaf."""
    model, mesh = ASTRA(dataclasses.replace(TINY, shortcut_reach=2.0)), make_mesh(jax.devices()[:1])
    config = OptimizerConfig(1e-3, 5, "step", 1, 1e-4, 1.0, amsgrad)

    def leaves():
        optimizer = make_optimizer(config, steps_per_epoch=10)
        state = jax.eval_shape(lambda: init_state(model, optimizer, 0, mesh, averaged=True))
        step = make_train_step(model, LOSS, optimizer, 10, mesh, 0.5, accumulation_steps=2)
        after, _ = jax.eval_shape(step, state, random_batch(TINY, clips=2))
        return [[(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(of)] for of in (state, after)]

    expected = leaves()
    with jax.enable_x64(True):
        found = leaves()
    assert found == expected and expected[0] == expected[1]


def test_a_step_draws_the_same_whatever_generator_jax_is_told_to_use():
    mesh, optimizer, noisy = make_mesh(jax.devices()[:1]), optax.sgd(0.1), Noisy(MODEL.config)

    def after():
        state = init_state(noisy, optimizer, 7, mesh)
        step = make_train_step(noisy, LOSS, optimizer, 10, mesh)
        return jax.device_get(step(state, batch())[0])

    expected = after()
    assert expected.key.tolist() == jax.random.key_data(jax.random.key(7)).tolist()
    with jax.default_prng_impl("rbg"):
        found = after()
    jax.tree.map(np.testing.assert_array_equal, found, expected)
