"""The losses on numbers worked out by hand."""

import math

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
