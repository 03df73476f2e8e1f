"""What a clip lacks: attention never sees it."""

import dataclasses

import jax
import numpy as np
import pytest
from helpers.components import one_device
from helpers.models import (
    LOSS,
    SMALL,
    full_masks,
    predict,
    random_batch,
    random_inputs,
    random_params,
)

from astra_jax.model import ASTRA
from astra_jax.training.gradients import make_gradients


def test_attention_never_sees_what_is_masked():
    params, inputs = random_params(ASTRA(SMALL)), random_inputs(SMALL, 2)
    masks = full_masks(inputs)
    masks["features"][0][:, 6:] = False
    masks["features"][1][1] = False
    masks["log_mel"][:, 500:] = False
    before = predict(SMALL, params, inputs | {"masks": masks})
    noisy = jax.tree.map(np.copy, inputs)
    noisy["features"][0][:, 6:] += 100
    noisy["features"][1][1] -= 50
    # Segment 5 begins with frame 480: one absent frame hides it.
    noisy["log_mel"][:, 480:] = 0
    after = predict(SMALL, params, noisy | {"masks": masks})
    np.testing.assert_array_equal(before.probabilities, after.probabilities)
    unmasked = predict(SMALL, params, noisy)
    assert np.abs(unmasked.probabilities - before.probabilities).max() > 1e-3


def test_masks_that_hide_nothing_change_nothing():
    params, inputs = random_params(ASTRA(SMALL)), random_inputs(SMALL, 2)
    plain = predict(SMALL, params, inputs)
    masked = predict(SMALL, params, inputs | {"masks": full_masks(inputs)})
    np.testing.assert_allclose(plain.probabilities, masked.probabilities, atol=1e-5)


def test_a_clip_with_nothing_in_it_gives_finite_predictions():
    params, inputs = random_params(ASTRA(SMALL)), random_inputs(SMALL, 2)
    masks = jax.tree.map(np.zeros_like, full_masks(inputs))
    out = predict(SMALL, params, inputs | {"masks": masks})
    assert np.isfinite(out.probabilities).all()


def spoil(batch, value):
    """A batch that lacks rows of both sources and frames of the audio, which hold `value`."""
    batch = jax.tree.map(np.copy, batch)
    masks = batch["masks"] = full_masks(batch)
    masks["features"][0][:, 6:] = False
    masks["features"][1][1] = False
    masks["log_mel"][:, 500:] = False
    for array, mask in zip(batch["features"], masks["features"], strict=True):
        array[~mask] = value
    batch["log_mel"][~masks["log_mel"]] = value
    # Where there is no target, whatever stands there.
    batch["displacements"][~batch["displacement_mask"]] = value
    return batch


@pytest.fixture(scope="module")
def training():
    """Parameters of a model with all that sees a source, and its gradients as a program."""
    config = dataclasses.replace(
        SMALL, dim=4, encoder_layers=2, decoder_layers=1, feed_forward=4, shortcut_reach=4.0
    )
    model = ASTRA(config)
    gradients = jax.jit(make_gradients(model, LOSS, one_device()))
    return random_params(model), random_batch(config, 2), gradients


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 3e38])
def test_no_value_of_what_is_absent_reaches_the_loss_or_a_gradient(training, value):
    params, batch, gradients = training
    expected = gradients(params, spoil(batch, 0.0), jax.random.key(0))
    found = gradients(params, spoil(batch, value), jax.random.key(0))
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert np.isfinite(ours).all()
        np.testing.assert_array_equal(ours, theirs)


def test_a_clip_with_nothing_in_it_is_predicted_alike_whatever_its_rows_hold():
    params, inputs = random_params(ASTRA(SMALL)), random_inputs(SMALL, 2)
    masks = jax.tree.map(np.zeros_like, full_masks(inputs))
    before = predict(SMALL, params, inputs | {"masks": masks})
    noisy = jax.tree.map(lambda array: array + 7, inputs)
    after = predict(SMALL, params, noisy | {"masks": masks})
    np.testing.assert_array_equal(before.probabilities, after.probabilities)
