"""From windows to dense scores and sigma, on numbers worked out by hand; whole halves."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from helpers.matches import data_config, index, write_match
from helpers.models import random_params, settings_of
from helpers.plain import read_windows

from astra_jax.config import paper
from astra_jax.devices import make_mesh
from astra_jax.errors import UserError
from astra_jax.model import Predictions, SpottingModel
from astra_jax.spotting.inference import Forward, Predictor
from astra_jax.spotting.matches import predict_matches
from astra_jax.spotting.programs import Programs
from astra_jax.spotting.windows import average_windows, place_scores


def predictions(windows, positions, entries, uncertainty=True):
    """One action class; entries: (window, position, probability, mean, log variance)."""
    shape = (windows, positions, 2)
    probabilities, mean, log_variance = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    probabilities[..., 0] = 0.9
    for window, position, p, mu, lv in entries:
        probabilities[window, position, 1] = p
        mean[window, position, 1] = mu
        log_variance[window, position, 1] = lv
    return Predictions(probabilities, mean, log_variance if uncertainty else None)


def placed(dense):
    rows, _ = np.nonzero(dense.scores)
    return {int(row): float(dense.scores[row, 0]) for row in rows}


def test_scores_are_placed_where_they_are_refined_to():
    out = predictions(2, 10, [(0, 4, 0.5, 1.7, 0), (1, 4, 0.25, -2.2, 0)])
    # 0 + 4 - 1.7 = 2.3; 16 + 4 + 2.2 = 22.2
    assert placed(place_scores(out, np.array([0, 16]), 30, 2)) == {2: 0.5, 22: 0.25}


def test_halves_round_to_even():
    out = predictions(1, 10, [(0, 2, 0.5, -0.5, 0), (0, 7, 0.4, 0.5, 0)])
    # 2.5 to 2, 6.5 to 6
    assert placed(place_scores(out, np.array([0]), 30, 2)) == {2: 0.5, 6: 0.4}


def test_positions_outside_the_half_are_clamped_and_the_largest_score_wins():
    entries = [(0, 0, 0.5, 3, 0), (0, 1, 0.7, 5, 0), (0, 9, 0.2, -9, 0)]
    assert placed(place_scores(predictions(1, 10, entries), np.array([0]), 12, 2)) == {
        0: 0.7,
        11: 0.2,
    }


def test_a_score_at_the_threshold_is_not_placed():
    out = predictions(1, 10, [(0, 3, 0.01, 0, 0), (0, 6, 0.0101, 0, 0)])
    assert list(placed(place_scores(out, np.array([0]), 10, 2))) == [6]


def test_background_is_no_action():
    dense = place_scores(predictions(1, 4, []), np.array([0]), 4, 2)
    assert dense.scores.shape == (4, 1) and not dense.scores.any()


def test_sigma_is_that_of_the_window_and_position_that_gave_the_score():
    entries = [(0, 5, 0.6, 0, 2 * np.log(3.0)), (1, 5, 0.4, 0, 2 * np.log(7.0))]
    dense = place_scores(predictions(2, 10, entries), np.array([0, 0]), 10, 2)
    assert dense.sigma_seconds[5, 0] == pytest.approx(1.5)
    assert np.isnan(dense.sigma_seconds[4, 0])
    assert place_scores(predictions(1, 4, [], False), np.array([0]), 4, 2).sigma_seconds is None


def settings(**inference):
    """The paper's, for matches of `write_match` without audio."""
    config = paper()
    with config.ignore_type():
        config.data.sources = data_config(None)["sources"]
        config.data.audio = None
    config.inference.update(inference)
    return settings_of(config)


class Waves(SpottingModel):
    """Scores by a row and by its place in a window, in place of ASTRA's; moved by less than 1."""

    @nn.compact
    def __call__(self, inputs: dict[str, Any], train: bool = False) -> Predictions:
        rows = jnp.repeat(inputs["features"][0], 2, axis=1)
        shape = (self.config.positions, self.config.num_classes + 1)
        places = self.param("places", nn.initializers.uniform(), shape)
        waves = jnp.sin(nn.Dense(shape[1])(rows) + places)
        return Predictions(nn.sigmoid(waves), waves, waves)


def predictor_of(settings, halves):
    model = Waves(settings.model)
    forward = Forward(Programs(model, make_mesh()), random_params(model))
    return Predictor(settings.inference, [(forward, halves)])


def test_the_last_window_of_a_half_is_predicted(tmp_path):
    """Zeros would stay where no window reaches: the last begins at 64 s of 70."""
    write_match(tmp_path, seconds=(70, 33))
    halves = index(tmp_path, audio=None)
    dense = predictor_of(settings(), halves).dense_scores(halves[0])
    assert dense.scores.shape == (140, 17)
    # Every position has some 0.5, moved by less than a position.
    assert (dense.scores[130:138].max(axis=1) > 0.1).all()


def test_the_batch_size_of_windows_changes_nothing(tmp_path):
    write_match(tmp_path, seconds=(120, 60))
    halves = index(tmp_path, audio=None)
    results = []
    for size in (8, 24):
        predictor = predictor_of(settings(batch_size=size), halves)
        assert predictor.batch_size == size
        results.append(predictor.dense_scores(halves[0]))
    np.testing.assert_allclose(results[0].scores, results[1].scores, atol=1e-5)


def test_windows_repeat_the_last_row_past_the_end(tmp_path):
    write_match(tmp_path, seconds=(70, 70))
    half = index(tmp_path, audio=None)[0]
    inputs = read_windows(half, [40.0, 64.0], 50)
    first = inputs["features"][0]
    assert first.shape == (2, 50, 6)
    np.testing.assert_allclose(first[0, :30, 0], 1000 + np.arange(40, 70))
    np.testing.assert_allclose(first[0, 30:, 0], 1069)
    np.testing.assert_allclose(first[1, 6:, 0], 1069)
    assert inputs["masks"]["features"][0].all()


def test_every_match_has_its_spots_with_sigma(tmp_path):
    write_match(tmp_path, "l/s/A", seconds=(60, 50))
    write_match(tmp_path, "l/s/B", seconds=(50, 51), seed=1)
    halves = index(tmp_path, "l/s/A", "l/s/B", audio=None)
    chosen = settings()
    spots = predict_matches(predictor_of(chosen, halves), halves, chosen.data.classes)
    assert list(spots) == ["l/s/A", "l/s/B"]
    assert {spot["half"] for spot in spots["l/s/A"]} == {"1", "2"}
    assert all(float(spot["sigma_seconds"]) > 0 for spot in spots["l/s/B"])
    assert max(int(spot["position"]) for spot in spots["l/s/A"]) < 60_000


def test_the_mean_over_windows_counts_their_middles_most():
    # Windows of 4 positions at 0 and 2: weights 1/4, 3/4, 3/4, 1/4 of the distance to the middle.
    first, second = 0.8, 0.4
    probabilities = np.stack([np.full((4, 2), first), np.full((4, 2), second)])
    mean = np.stack([np.full((4, 2), 1.0), np.full((4, 2), -1.0)])
    log_variance = np.log(np.stack([np.full((4, 2), 4.0), np.full((4, 2), 1.0)]))
    out = average_windows(Predictions(probabilities, mean, log_variance), np.array([0, 2]), 5)
    expected = [0.8, 0.8, (0.75 * 0.8 + 0.25 * 0.4), (0.25 * 0.8 + 0.75 * 0.4), 0.4]
    np.testing.assert_allclose(out.probabilities[0, :, 1], expected)
    np.testing.assert_allclose(out.displacement_mean[0, :, 1], [1, 1, 0.5, -0.5, -1])
    np.testing.assert_allclose(np.exp(out.displacement_log_variance[0, 2]), 0.75 * 4 + 0.25)


def test_windows_can_be_averaged(tmp_path):
    write_match(tmp_path, seconds=(70, 33))
    halves = index(tmp_path, audio=None)
    largest, mean = (
        predictor_of(settings(overlap=kind), halves).dense_scores(halves[0]).scores
        for kind in ("max", "mean")
    )
    assert mean.shape == (140, 17) and (mean[2:138].max(axis=1) > 0).all()
    assert mean.max() < largest.max()
    with pytest.raises(UserError, match="overlap"):
        settings(overlap="median")
