"""The learning rate's curve and the optimiser's arithmetic."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from astra_jax.config import paper
from astra_jax.errors import UserError
from astra_jax.training.optimizer import (
    OptimizerConfig,
    learning_rate_at,
    learning_rate_schedule,
    make_optimizer,
    scale_by_amsgrad,
)

STEPS = 10  # an epoch


def papers(epochs=50, batch_size=8, **changes):
    """The paper's optimiser, changed."""
    section = paper().optimizer.to_dict() | changes
    return OptimizerConfig.from_config(section, epochs, batch_size)


def test_the_published_curve_is_constant_within_an_epoch_and_ends_at_zero():
    schedule = learning_rate_schedule(papers(), STEPS)
    for e in range(1, 51):
        expected = 5e-5 * (e / 3 if e <= 3 else (1 + math.cos(math.pi * (e - 3) / 47)) / 2)
        first, last = schedule((e - 1) * STEPS), schedule(e * STEPS - 1)
        assert float(first) == float(last) == pytest.approx(expected, rel=1e-5, abs=1e-11)
    assert float(schedule(50 * STEPS - 1)) == 0


def test_the_step_schedule_moves_at_every_step():
    schedule = learning_rate_schedule(papers(schedule="step"), STEPS)
    assert float(schedule(0)) == pytest.approx(5e-5 / 30)
    assert float(schedule(29)) == pytest.approx(5e-5)
    assert float(schedule(499)) == pytest.approx(0, abs=1e-12)
    values = [float(schedule(step)) for step in range(29, 500)]
    assert all(a > b for a, b in zip(values, values[1:], strict=False))


def test_the_rate_grows_with_the_root_of_the_batch():
    assert papers(batch_size=32).learning_rate == pytest.approx(1e-4)
    schedule = learning_rate_schedule(papers(batch_size=32), STEPS)
    assert float(schedule(3 * STEPS - 1)) == pytest.approx(1e-4)


@pytest.mark.parametrize("warmup", [0, 1, 3])
@pytest.mark.parametrize("schedule", ["epoch", "step"])
def test_the_rate_that_is_told_is_the_one_trained_with(schedule, warmup):
    config = papers(epochs=7, batch_size=16, schedule=schedule, warmup_epochs=warmup)
    told, used = learning_rate_at(config, STEPS), learning_rate_schedule(config, STEPS)
    with jax.enable_x64(True):
        exact = [float(used(jnp.asarray(step, jnp.float64))) for step in range(7 * STEPS)]
    found = [told(step) for step in range(7 * STEPS)]
    np.testing.assert_allclose(found, exact, rtol=1e-12, atol=1e-20)
    # The step computes in single precision, which near the end leaves few digits of a cosine.
    steps = [float(used(step)) for step in range(7 * STEPS)]
    np.testing.assert_allclose(found, steps, rtol=3e-7, atol=1e-7 * config.learning_rate)
    assert found[-1] == 0 and all(type(rate) is float for rate in found)


@pytest.mark.parametrize(("key", "value"), [("warmup_epochs", 50), ("schedule", "daily")])
def test_a_curve_that_cannot_be_is_named(key, value):
    with pytest.raises(UserError, match=key):
        papers(**{key: value})


def test_amsgrad_corrects_the_running_maximum_afterwards():
    """PyTorch's arithmetic, step by step, on a gradient that falls."""
    transform = scale_by_amsgrad()
    state = transform.init(jnp.zeros(1))
    m = v = top = 0.0
    for t, g in enumerate((3.0, 0.5, 0.1, -0.2), start=1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        top = max(top, v)
        expected = m / (1 - 0.9**t) / (math.sqrt(top / (1 - 0.999**t)) + 1e-8)
        update, state = transform.update(jnp.array([g]), state)
        np.testing.assert_allclose(update, [expected], rtol=1e-5)


def test_weight_decay_is_added_to_the_gradient():
    config = papers(weight_decay=0.5, warmup_epochs=0)
    optimizer = make_optimizer(config, 1000)
    params = jnp.array([2.0])
    state = optimizer.init(params)
    # Gradient 1 + 0.5 * 2 = 2; Adam's first step is the rate times its sign.
    update, state = optimizer.update(jnp.array([1.0]), state, params)
    np.testing.assert_allclose(update, [-float(learning_rate_schedule(config, 1000)(0))], rtol=1e-5)
    np.testing.assert_allclose(state[1].mu, [0.2], rtol=1e-5)


def move(gradients, start, **optimizer):
    """A parameter after `make_optimizer`'s steps, at a rate that stays 1e-2."""
    config = papers(1_000_000, learning_rate=1e-2, warmup_epochs=0, **optimizer)
    return walk(make_optimizer(config, 1000), gradients, start)


def walk(transform, gradients, start):
    params = jnp.array(start)
    state = transform.init(params)
    for gradient in gradients:
        update, state = transform.update(jnp.array(gradient), state, params)
        params = params + update
    return np.asarray(params)


GRADIENTS = ([3.0, -0.1], [0.5, 0.2], [0.1, -0.7], [-0.2, 0.4])


def first_moments(config, gradient, params):
    transform = make_optimizer(config, 1000)
    _, state = transform.update(gradient, transform.init(params), params)
    (moments,) = (part.mu for part in state if hasattr(part, "mu"))
    return jax.tree.map(np.asarray, moments)


def test_gradients_are_clipped_to_a_norm_over_all_parameters_before_the_decay():
    config = papers(clip_norm=1.0, weight_decay=0.5)
    params = {"a": jnp.array([2.0]), "b": jnp.array([0.0])}
    # A norm of 5 becomes 1: 0.6 and 0.8; the decay adds 0.5 * 2 to the first. Times 1 - 0.9.
    found = first_moments(config, {"a": jnp.array([3.0]), "b": jnp.array([4.0])}, params)
    np.testing.assert_allclose([found["a"], found["b"]], [[0.16], [0.08]], rtol=1e-5)
    # A shorter one stays as it is.
    found = first_moments(config, {"a": jnp.array([0.3]), "b": jnp.array([0.4])}, params)
    np.testing.assert_allclose([found["a"], found["b"]], [[0.13], [0.04]], rtol=1e-5)


def test_nothing_is_clipped_unless_asked():
    gradient = {"a": jnp.array([3000.0])}
    found = first_moments(papers(), gradient, {"a": jnp.array([0.0])})
    np.testing.assert_allclose(found["a"], [300.0], rtol=1e-6)
