"""The shortcut from raw columns to logits, and LayerNorm before sublayers."""

from functools import partial

import jax
import numpy as np
import pytest

from astra_jax.defaults import paper
from astra_jax.errors import UserError
from astra_jax.model import ASTRA, ModelConfig, SourceConfig
from astra_jax.model.shortcut import Shortcut, row_of_position
from astra_jax.training.state import init_params

BASE = ModelConfig(
    sources=(SourceConfig(4, (3, 2)), SourceConfig(8, (2,))),
    positions=8,
    dim=8,
    heads=2,
    feed_forward=16,
    encoder_layers=2,
    decoder_layers=1,
)


def changed(**changes):
    return ModelConfig(**({f: getattr(BASE, f) for f in BASE.__dataclass_fields__} | changes))


@partial(jax.jit, static_argnums=0)
def predict(config, params, inputs):
    return ASTRA(config).apply({"params": params}, inputs)


def fresh(config):
    return jax.jit(init_params, static_argnums=0)(config, jax.random.key(0))


def inputs_of(config, clips=2):
    rng = np.random.default_rng(0)
    return {
        "features": tuple(
            rng.normal(size=(clips, s.rows, s.width)).astype(np.float32) for s in config.sources
        ),
        "log_mel": None,
    }


def shortcut_of(config, inputs, params):
    return np.asarray(Shortcut(config).apply({"params": params}, inputs["features"]))


def test_the_shortcut_starts_at_nothing():
    config, without = changed(shortcut_reach=2.0), changed()
    params = fresh(config)
    inputs = inputs_of(config)
    rest = {name: value for name, value in params.items() if name != "shortcut"}
    np.testing.assert_array_equal(
        predict(config, params, inputs).probabilities, predict(without, rest, inputs).probabilities
    )


@pytest.mark.parametrize(("reach", "reached"), [(0.0, [4, 5]), (2.0, [2, 3, 4, 5, 6, 7])])
def test_the_shortcut_reaches_the_rows_around_a_position(reach, reached):
    """Row 2 of 4 holds positions 4 and 5; with 2 positions of reach its neighbours see it too."""
    config = changed(shortcut_reach=reach)
    params = jax.tree.map(np.ones_like, fresh(config)["shortcut"])
    inputs = {"features": (np.zeros((1, 4, 5)), np.zeros((1, 8, 2))), "log_mel": None}
    inputs["features"][0][0, 2, 3] = 7
    out = shortcut_of(config, inputs, params)
    assert out.shape == (1, 8, 18)
    np.testing.assert_array_equal(np.flatnonzero(out[0, :, 0] == 7), reached)
    assert set(np.unique(out)) <= {0.0, 7.0}


def test_seconds_of_the_shortcut_become_positions():
    config = paper()
    assert ModelConfig.from_config(config).shortcut_reach is None
    config.model.shortcut_seconds = 4.0
    assert ModelConfig.from_config(config).shortcut_reach == 8.0


@pytest.mark.parametrize(
    ("positions", "expected"), [(8, [0, 0, 1, 1, 2, 2, 3, 3]), (4, [0, 1, 2, 3]), (2, [0, 2])]
)
def test_a_position_lies_in_the_row_of_its_time(positions, expected):
    np.testing.assert_array_equal(row_of_position(4, positions), expected)


def test_layer_norm_can_stand_before_the_sublayers():
    config = changed(norm="pre")
    params = fresh(config)
    assert "norm" in params["encoder"] and "norm" in params["decoder"]
    assert "norm" not in fresh(BASE)["encoder"] and "shortcut" not in fresh(BASE)
    inputs = inputs_of(config)
    pre, post = (predict(c, params, inputs).probabilities for c in (config, BASE))
    assert np.isfinite(pre).all() and np.abs(pre - post).max() > 1e-3
    with pytest.raises(UserError, match="norm"):
        changed(norm="middle")
