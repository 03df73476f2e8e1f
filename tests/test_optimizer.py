"""The learning rate's curve and the optimiser's arithmetic."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from astra_jax.defaults import paper
from astra_jax.errors import UserError
from astra_jax.training.optimizer import (
    learning_rate_schedule,
    make_optimizer,
    peak_learning_rate,
    scale_by_amsgrad,
)

STEPS = 10  # an epoch


def test_the_published_curve_is_constant_within_an_epoch_and_ends_at_zero():
    schedule = learning_rate_schedule(paper(), STEPS)
    for e in range(1, 51):
        expected = 5e-5 * (e / 3 if e <= 3 else (1 + math.cos(math.pi * (e - 3) / 47)) / 2)
        first, last = schedule((e - 1) * STEPS), schedule(e * STEPS - 1)
        assert float(first) == float(last) == pytest.approx(expected, rel=1e-5, abs=1e-11)
    assert float(schedule(50 * STEPS - 1)) == 0


def test_the_step_schedule_moves_at_every_step():
    config = paper()
    config.optimizer.schedule = "step"
    schedule = learning_rate_schedule(config, STEPS)
    assert float(schedule(0)) == pytest.approx(5e-5 / 30)
    assert float(schedule(29)) == pytest.approx(5e-5)
    assert float(schedule(499)) == pytest.approx(0, abs=1e-12)
    values = [float(schedule(step)) for step in range(29, 500)]
    assert all(a > b for a, b in zip(values, values[1:], strict=False))


def test_the_rate_grows_with_the_root_of_the_batch():
    config = paper()
    config.training.batch_size = 32
    assert peak_learning_rate(config) == pytest.approx(1e-4)


@pytest.mark.parametrize(("key", "value"), [("warmup_epochs", 50), ("schedule", "daily")])
def test_a_curve_that_cannot_be_is_named(key, value):
    config = paper()
    config.optimizer[key] = value
    with pytest.raises(UserError, match=key):
        learning_rate_schedule(config, STEPS)


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
    config = paper()
    config.optimizer.update(weight_decay=0.5, warmup_epochs=0)
    optimizer = make_optimizer(config, 1000)
    params = jnp.array([2.0])
    state = optimizer.init(params)
    # Gradient 1 + 0.5 * 2 = 2; Adam's first step is the rate times its sign.
    update, state = optimizer.update(jnp.array([1.0]), state, params)
    np.testing.assert_allclose(update, [-float(learning_rate_schedule(config, 1000)(0))], rtol=1e-5)
    np.testing.assert_allclose(state[1].mu, [0.2], rtol=1e-5)
