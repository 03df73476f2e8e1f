"""What tells the network when a token is: own-time tokens, attention biased by distance."""

from functools import partial

import jax
import numpy as np
import pytest

from astra_jax.defaults import paper
from astra_jax.errors import UserError
from astra_jax.model import ASTRA, AudioConfig, ModelConfig, SourceConfig
from astra_jax.model.times import OwnTime, Shortcut, TimeBias, token_times
from astra_jax.training.state import example_inputs, init_params

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


def test_tokens_are_timed_by_their_row_in_output_positions():
    expected = [0, 0, 2, 2, 4, 4, 6, 6, *range(8)]
    np.testing.assert_array_equal(token_times(BASE), expected)
    audio = changed(audio=AudioConfig(frames=400, mels=16, segment_frames=96))
    # Four segments of 96 of 400 frames: 1.92 positions each.
    np.testing.assert_allclose(token_times(audio)[16:], [0, 1.92, 3.84, 5.76])


@pytest.mark.parametrize("positions", [8, 5, 16])
def test_each_position_is_given_the_tokens_of_its_own_time_only(positions):
    config = changed(positions=positions)
    module = OwnTime(config)
    tokens = np.random.default_rng(1).normal(size=(1, 16, 8)).astype(np.float32)
    params = module.init(jax.random.key(0), tokens, None)
    before = module.apply(params, tokens, None)
    # Row 2 of the first source: its two tokens, half of the clip to three quarters.
    tokens[:, 4:6] += 1
    moved = np.any(module.apply(params, tokens, None) != before, axis=(0, 2))
    times = np.arange(positions) / positions
    np.testing.assert_array_equal(moved, (times >= 0.5) & (times < 0.75))


def test_own_time_takes_nothing_from_absent_tokens():
    module = OwnTime(BASE)
    tokens = np.random.default_rng(1).normal(size=(1, 16, 8)).astype(np.float32)
    present = np.ones((1, 16), bool)
    present[:, 8:] = False
    params = module.init(jax.random.key(0), tokens, present)
    before = module.apply(params, tokens, present)
    tokens[:, 8:] = 99
    np.testing.assert_array_equal(module.apply(params, tokens, present), before)


def test_the_bias_falls_with_distance_alike_at_every_moment():
    distance = np.arange(4)[:, None] - np.arange(4)[None]
    module = TimeBias(BASE)
    bias = module.apply(module.init(jax.random.key(0), distance), distance)
    np.testing.assert_allclose(bias[0], -np.abs(distance) / 4)
    np.testing.assert_allclose(bias[1], -np.abs(distance) / 256)
    segments = np.stack([distance, distance + 1])
    assert module.apply(module.init(jax.random.key(0), segments), segments).shape == (2, 2, 4, 4)


def test_a_moment_later_is_answered_a_moment_later_by_time_bias_and_own_time():
    """Without codes the model is then a convolution: shifted inputs, shifted outputs."""
    config = changed(
        sources=(SourceConfig(40, (3,)),),
        positions=40,
        hierarchical=False,
        time_bias=True,
        own_time="embeddings",
    )
    params = jax.tree.map(np.array, fresh(config))
    params["source_0"]["time_code"][:] = 0
    params["decoder"]["queries"][:] = 0
    for layer in (*params["encoder"].values(), params["decoder"]["layer_0"]):
        for name in ("self_bias", "cross_bias"):
            if name in layer:  # the slow head sees the ends
                layer[name]["by_distance"][1] = layer[name]["by_distance"][0]
            if name in layer:
                layer[name]["by_distance"] *= 40
    inputs = inputs_of(config, clips=1)
    inputs["features"][0][:, :10] = inputs["features"][0][:, 30:] = 0
    shifted = {"features": (np.roll(inputs["features"][0], 5, axis=1),), "log_mel": None}
    there = predict(config, params, inputs).probabilities[0]
    moved = predict(config, params, shifted).probabilities[0]
    np.testing.assert_allclose(moved[13:35], there[8:30], atol=1e-4)
    assert np.abs(moved[13:35] - there[13:35]).max() > 1e-3


@pytest.mark.parametrize("own_time", ["embeddings", "memory"])
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_every_combination_predicts(own_time, norm):
    config = changed(own_time=own_time, norm=norm, time_bias=True, embedding_norm=True)
    out = predict(config, fresh(config), inputs_of(config))
    assert out.probabilities.shape == (2, 8, 18) and np.isfinite(out.probabilities).all()


def test_the_published_model_has_none_of_it():
    names = {jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(fresh(BASE))}
    assert not any("bias']['by" in name or "own_time" in name for name in names)
    assert not any(name.startswith("['source_0']['norm']") for name in names)
    assert "norm" not in fresh(BASE)["encoder"] and "norm" in fresh(changed(norm="pre"))["encoder"]


def test_embedding_norm_makes_tokens_of_any_features_alike():
    config = changed(embedding_norm=True, codes="sinusoidal")
    params = fresh(config)
    small, large = (
        ASTRA(config).apply(
            {"params": params},
            jax.tree.map(lambda x, k=k: k * x, inputs_of(config)),
            method=lambda model, inputs: model.sources[0].project(inputs["features"][0]),
        )
        for k in (10.0, 1000.0)
    )
    np.testing.assert_allclose(np.std(small, axis=-1), 1, atol=0.1)
    np.testing.assert_allclose(np.std(large, axis=-1), 1, atol=0.1)
    assert example_inputs(config)["features"][0].shape == (1, 4, 5)


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
    config.model.shortcut_seconds = -1.0
    with pytest.raises(UserError, match="shortcut_seconds"):
        ModelConfig.from_config(config)
