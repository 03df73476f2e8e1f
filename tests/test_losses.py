"""The losses on numbers worked out by hand."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.models import settings_of

from astra_jax.config import paper
from astra_jax.model import Predictions
from astra_jax.training.losses import LossConfig, classification_loss, displacement_loss, losses


def test_focal_loss_weighs_each_term_by_its_error():
    p, y = jnp.array([[[0.8, 0.3]]]), jnp.array([[[1.0, 0.0]]])
    first, second = -math.log(0.8 + 7e-5), -math.log(0.7 + 7e-5)
    focal = (0.2 * first + 0.3 * second) / 2
    assert float(classification_loss(p, y, focal=True)) == pytest.approx(focal, rel=1e-5)
    plain = (first + second) / 2
    assert float(classification_loss(p, y, focal=False)) == pytest.approx(plain, rel=1e-5)


def test_mixed_targets_count_on_both_sides():
    p, y = jnp.array([[[0.6]]]), jnp.array([[[0.25]]])
    expected = -0.35 * (0.25 * math.log(0.6 + 7e-5) + 0.75 * math.log(0.4 + 7e-5))
    assert float(classification_loss(p, y)) == pytest.approx(expected, rel=1e-5)


def test_certain_and_wrong_is_finite():
    loss = classification_loss(jnp.array([[[1.0, 0.0]]]), jnp.array([[[0.0, 1.0]]]))
    assert float(loss) == pytest.approx(-math.log(7e-5), rel=1e-4)


def displacement_case():
    """One clip of 5 positions, one class; a mixed class target of 0.5 at position 2."""
    mean = jnp.zeros((1, 5, 1))
    targets = jnp.array([-2.0, -1, 0, 1, 2]).reshape(1, 5, 1)
    mask = jnp.array([False, True, True, True, True]).reshape(1, 5, 1)
    class_targets = jnp.array([0, 0, 0.5, 0, 0]).reshape(1, 5, 1)
    return mean, targets, mask, class_targets


def test_displacement_loss_is_weighted_by_the_class_target_in_reach():
    mean, targets, mask, class_targets = displacement_case()
    # Radius 1 reaches positions 1, 2, 3, each with weight 0.5; divided by 1 clip * 5 positions.
    loss = displacement_loss(mean, None, targets, mask, class_targets, weight_radius=1)
    assert float(loss) == pytest.approx(0.5 * (1 + 0 + 1) / 5)
    loss = displacement_loss(mean, None, targets, mask, class_targets, weight_radius=2)
    assert float(loss) == pytest.approx(0.5 * (1 + 0 + 1 + 4) / 5)


def test_uncertainty_weighs_the_error_by_the_variance():
    mean, targets, mask, class_targets = displacement_case()
    log_variance = jnp.full((1, 5, 1), math.log(2.0))
    loss = displacement_loss(mean, log_variance, targets, mask, class_targets, weight_radius=1)
    expected = 0.5 * (0.3 * (1 + 0 + 1) / 2 + 3 * 0.7 * math.log(2.0)) / 5
    assert float(loss) == pytest.approx(expected, rel=1e-6)


def random_displacements(seed=0):
    """Mean, log variance, targets, mask and class targets of four clips."""
    rng = np.random.default_rng(seed)
    mean, log_variance, targets = rng.normal(size=(3, 4, 10, 3)).astype(np.float32)
    class_targets = rng.random(mean.shape).astype(np.float32)
    return mean, log_variance, 3 * targets, rng.random(mean.shape) < 0.3, class_targets


def loss_and_gradients(mean, log_variance, targets, mask, class_targets):
    def loss(mean, log_variance, targets):
        return displacement_loss(mean, log_variance, targets, mask, class_targets, weight_radius=1)

    return jax.jit(jax.value_and_grad(loss, (0, 2) if log_variance is None else (0, 1, 2)))(
        mean, log_variance, targets
    )


@pytest.mark.parametrize("certain", [False, True])
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, -89.0, -1e4, 1e4, 3e38])
def test_nothing_of_a_masked_output_reaches_the_loss_or_a_gradient(value, certain):
    *outputs, mask, class_targets = random_displacements()
    spoiled = [np.where(mask, array, np.float32(value)) for array in outputs]
    if certain:
        outputs[1] = spoiled[1] = None
    expected = loss_and_gradients(*outputs, mask, class_targets)
    found = loss_and_gradients(*spoiled, mask, class_targets)
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert np.isfinite(ours).all()
        np.testing.assert_array_equal(ours, theirs)
    for gradient in jax.tree.leaves(found[1]):
        assert not gradient[~mask].any() and gradient[mask].any()


def test_the_mask_changes_no_bit_of_what_counts():
    """The formula of equation 2, masked once at its end."""
    mean, log_variance, targets, mask, class_targets = random_displacements()

    def masked_once(mean, log_variance, targets):
        error = 0.3 * jnp.square(targets - mean) * jnp.exp(-log_variance) + 0.7 * log_variance
        padded = np.pad(class_targets, ((0, 0), (1, 1), (0, 0)))
        reach = np.maximum(np.maximum(padded[:, :-2], padded[:, 1:-1]), padded[:, 2:])
        return jnp.sum(jnp.where(mask, error * reach, 0.0)) / 40

    found = loss_and_gradients(mean, log_variance, targets, mask, class_targets)
    expected = jax.jit(jax.value_and_grad(masked_once, (0, 1, 2)))(mean, log_variance, targets)
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_losses_are_of_single_precision_with_64_bits_enabled():
    with jax.enable_x64(True):
        found = loss_and_gradients(*random_displacements())
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {np.dtype("float32")}
    expected = loss_and_gradients(*random_displacements())
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_the_papers_radii_give_a_window_of_five_positions():
    config = settings_of(paper()).loss
    assert config == LossConfig(True, 100.0, 1.0, weight_radius=2)
    np.testing.assert_equal(2 * config.weight_radius + 1, 5)


def all_losses(mask):
    """Both losses of the case above, with a column of background before the class."""
    mean, targets, mask, class_targets = (
        jnp.pad(array, ((0, 0), (0, 0), (1, 0)))
        for array in (*displacement_case()[:2], mask, displacement_case()[3])
    )
    probabilities = jnp.full((1, 5, 2), 0.6)
    config = LossConfig(False, 1.0, 1.0, weight_radius=1)
    predictions = Predictions(probabilities, mean, None)
    return losses(predictions, class_targets, targets, mask, config)


def test_a_batch_without_displacement_targets_costs_nothing():
    found = all_losses(jnp.zeros((1, 5, 1), bool))
    assert float(found.displacement) == 0 and float(found.total) == float(found.classification)
