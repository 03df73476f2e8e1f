"""What a clip lacks: attention never sees it."""

import jax
import numpy as np
from helpers.models import SMALL, full_masks, predict, random_inputs, random_params

from astra_jax.model import ASTRA


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
