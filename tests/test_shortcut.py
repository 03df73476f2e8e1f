"""The shortcut from raw columns to logits, and LayerNorm before sublayers."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.models import predict, random_inputs, random_params, settings_of, shapes_of

from astra_jax.config import paper
from astra_jax.errors import UserError
from astra_jax.model import ASTRA, ModelConfig, SourceShape, VGGishConfig
from astra_jax.model.shortcut import Shortcut, knot_distances, knot_weights

BASE = ModelConfig(
    sources=(SourceShape(4, (3, 2)), SourceShape(8, (2,))),
    positions=8,
    dim=8,
    heads=2,
    feed_forward=16,
    encoder_layers=2,
    decoder_layers=1,
)


def changed(**changes):
    return dataclasses.replace(BASE, **changes)


@partial(jax.jit, static_argnums=0)
def see(config, params, features):
    return Shortcut(config).apply({"params": params}, features)


def features_of(config):
    return tuple(map(jnp.asarray, random_inputs(config, 2)["features"]))


def test_the_logits_of_the_shortcut_start_at_nothing():
    config = changed(shortcut_reach=2.0)
    features = features_of(config)
    params = jax.jit(Shortcut(config).init)(jax.random.key(0), features)["params"]
    logits, queries = see(config, params, features)
    assert logits.shape == (2, 8, 18) and not np.any(logits)
    assert queries.shape == (2, 8, 8) and np.std(queries) > 0.1


def test_the_shortcut_reaches_both_heads():
    config = changed(shortcut_reach=2.0)
    params, inputs = random_params(ASTRA(config)), random_inputs(config, 2)
    params["shortcut"]["logits"] = jax.tree.map(np.zeros_like, params["shortcut"]["logits"])
    before = predict(config, params, inputs)
    params["shortcut"]["queries"] = jax.tree.map(np.zeros_like, params["shortcut"]["queries"])
    after = predict(config, params, inputs)
    rest = {name: value for name, value in params.items() if name != "shortcut"}
    without = predict(changed(), rest, inputs)
    for name in ("probabilities", "displacement_mean", "displacement_log_variance"):
        assert np.abs(getattr(before, name) - getattr(after, name)).max() > 1e-3
        np.testing.assert_array_equal(getattr(after, name), getattr(without, name))


def test_knots_double_their_distance():
    assert knot_distances(16.0, 2.0) == [-16, -8, -4, -2, 0, 2, 4, 8, 16]
    assert knot_distances(15.0, 2.0) == [-8, -4, -2, 0, 2, 4, 8] and knot_distances(0.0, 2.0) == [0]


def test_near_rows_are_seen_one_by_one_and_far_ones_blurred():
    weights = knot_weights(rows=40, positions=40, reach=4.0, unit=1.0)
    assert weights.shape == (40, 7, 40)
    # Knots at -4, -2, -1, 0, 1, 2, 4; position 20.
    at = {knot: weights[20, index] for index, knot in enumerate((-4, -2, -1, 0, 1, 2, 4))}
    for knot in (-1, 0, 1):
        np.testing.assert_array_equal(np.flatnonzero(at[knot]), [20 + knot])
    # Distance 3 lies half way to the knot at 4: 1 and 1/2 of it, as mean.
    np.testing.assert_allclose(at[2][[22, 23]], [2 / 3, 1 / 3], rtol=1e-6)
    far = np.array([0.5, 1, 0.75, 0.5, 0.25])
    np.testing.assert_allclose(at[4][23:28], far / far.sum(), rtol=1e-6)
    np.testing.assert_allclose(at[-4][13:18], far[::-1] / far.sum(), rtol=1e-6)
    for knot in at:
        assert at[knot].sum() == pytest.approx(1)


def test_rows_outside_the_clip_count_as_zeros():
    weights = knot_weights(rows=8, positions=8, reach=4.0, unit=1.0)
    # At the first position nothing lies before it, and of the knot at 4 all but 0.25 at 8 does not.
    assert weights[0].sum(axis=1) == pytest.approx([0, 0, 0, 1, 1, 1, 1])
    assert weights[4, -1].sum() == pytest.approx((0.5) / 3)


@pytest.mark.parametrize(
    ("rows", "seen", "weight"),
    [(16, [7, 8, 9], 1), (8, [4], 1), (4, [2], 1), (2, [1], 1), (1, [0], 0.5)],
)
def test_sources_of_any_rate_are_seen_at_the_time_of_a_position(rows, seen, weight):
    """Position 4 of 8: several fast rows are averaged, of slow ones the one that begins there."""
    weights = knot_weights(rows=rows, positions=8, reach=0.0, unit=1.0)[4, 0]
    assert weights.sum() == pytest.approx(weight)
    assert np.flatnonzero(weights).tolist() == seen


def test_a_position_between_two_rows_sees_both():
    weights = knot_weights(rows=4, positions=8, reach=2.0, unit=2.0)
    np.testing.assert_allclose(weights[5, 1], [0, 0, 0.5, 0.5], rtol=1e-6)


def test_only_the_first_columns_of_a_source_reach_the_shortcut():
    sources = (SourceShape(4, (3, 2), shortcut_columns=2), SourceShape(8, (2,), 0))
    config = changed(shortcut_reach=2.0, sources=sources)
    params = random_params(ASTRA(config))["shortcut"]
    assert params["logits"]["kernel"].shape == (3 * 2, 18)
    before = features_of(config)
    after = before[0].at[..., 2:].set(7), jnp.full_like(before[1], 7)
    for one, other in zip(*(see(config, params, x) for x in (before, after)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_seconds_of_the_shortcut_become_positions():
    config = paper()
    assert settings_of(config).model.shortcut_reach is None
    config.model.shortcut_seconds = 4.0
    model = settings_of(config).model
    assert (model.shortcut_reach, model.shortcut_unit) == (8.0, 2.0)


def test_a_shortcut_reaches_no_farther_than_a_clip():
    config = paper()
    config.model.shortcut_seconds = 7200.0
    assert settings_of(config).model.shortcut_reach == 100.0


@pytest.mark.parametrize("sources", [(), (SourceShape(4, (3, 2), shortcut_columns=0),)])
def test_a_shortcut_that_sees_no_column_is_refused(sources):
    audio = VGGishConfig(frames=96)
    assert changed(sources=sources, audio=audio, encoder_layers=1).shortcut_reach is None
    with pytest.raises(UserError, match=r"config\.model\.shortcut_seconds: no source has columns"):
        changed(sources=sources, audio=audio, encoder_layers=1, shortcut_reach=2.0)


def test_layer_norm_can_stand_before_the_sublayers():
    config = changed(norm="pre")
    params, inputs = random_params(ASTRA(config)), random_inputs(config, 2)
    assert "norm" in params["encoder"] and "norm" in params["decoder"]
    plain = shapes_of(ASTRA(BASE))
    assert "norm" not in plain["encoder"] and "shortcut" not in plain
    pre, post = (predict(c, params, inputs).probabilities for c in (config, BASE))
    assert np.isfinite(pre).all() and np.abs(pre - post).max() > 1e-3
    with pytest.raises(UserError, match="norm"):
        changed(norm="middle")
