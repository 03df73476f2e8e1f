"""The model's behaviour beyond the recordings: sizes, starts, segments, masks, augmentation."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from astra_jax.config.defaults import paper
from astra_jax.errors import UserError
from astra_jax.model import ASTRA, AudioConfig, ModelConfig, SourceConfig
from astra_jax.model.embeddings import switched_order, temporal_dropout
from astra_jax.model.initial_values import example_inputs, init_params, parameter_count
from astra_jax.model.transformer import Encoder, EncoderLayer, segment_slots, segments_of_layer

SMALL = ModelConfig(
    sources=(SourceConfig(10, (6, 4)), SourceConfig(20, (3,))),
    audio=AudioConfig(frames=1000, mels=16, channels=(2, 2, 3, 3, 4, 4), hidden=8),
    positions=20,
    dim=16,
    heads=2,
    feed_forward=32,
    encoder_layers=3,
    decoder_layers=2,
)


def small(**changes):
    return ModelConfig(**({f: getattr(SMALL, f) for f in SMALL.__dataclass_fields__} | changes))


def random_inputs(config, clips, seed=0):
    rng = np.random.default_rng(seed)
    features = tuple(
        rng.normal(size=(clips, s.rows, s.width)).astype(np.float32) for s in config.sources
    )
    inputs = {"features": features, "log_mel": None}
    if config.audio is not None:
        size = (clips, config.audio.frames, config.audio.mels)
        inputs["log_mel"] = rng.normal(-40, 10, size).astype(np.float32)
    return inputs


def full_masks(inputs):
    masks = {"features": tuple(np.ones(f.shape[:2], bool) for f in inputs["features"])}
    if inputs["log_mel"] is not None:
        masks["log_mel"] = np.ones(inputs["log_mel"].shape[:2], bool)
    return masks


@partial(jax.jit, static_argnums=(0, 1))
def _fresh(config, seed):
    return init_params(config, jax.random.key(seed))


def fresh_params(config, seed=0):
    """Compiled as a whole: op by op takes several times as long."""
    return jax.device_get(_fresh(config, seed))


HIGHEST = "precision=(Precision.HIGHEST, Precision.HIGHEST)"


@partial(jax.jit, static_argnums=0)
def predict(config, params, inputs):
    return ASTRA(config).apply({"params": params}, inputs)


def abstract(config):
    return jax.eval_shape(lambda key: init_params(config, key), jax.random.key(0))


@pytest.mark.parametrize(("audio", "parameters"), [(False, 44_299_574), (True, 168_372_918)])
def test_the_papers_model_has_its_number_of_parameters(audio, parameters):
    config = paper()
    if not audio:
        with config.ignore_type():
            config.data.audio = None
    assert parameter_count(abstract(ModelConfig.from_config(config))) == parameters


def test_the_papers_config_has_the_papers_sizes():
    config = ModelConfig.from_config(paper())
    assert config.sources == (SourceConfig(50, (2048, 2048, 384, 2048, 2048)),)
    assert (config.positions, config.audio.segments, config.audio.image) == (100, 52, (6, 8))


@pytest.mark.parametrize("positions", [7, 20, 33])
def test_output_positions_are_free_of_the_inputs_length(positions):
    config = small(positions=positions)
    out = predict(config, fresh_params(config), random_inputs(config, 2))
    assert out.probabilities.shape == out.displacement_mean.shape == (2, positions, 18)
    assert out.displacement_log_variance.shape == (2, positions, 18)


def test_a_model_without_uncertainty_has_no_log_variance():
    config = small(uncertainty=False)
    out = predict(config, fresh_params(config), random_inputs(config, 1))
    assert out.displacement_log_variance is None


def test_bfloat16_computes_in_bfloat16_and_answers_in_float32():
    config = small(dtype="bfloat16")
    params = fresh_params(config)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    inputs = random_inputs(config, 2)
    out = predict(config, params, inputs)
    exact = predict(SMALL, params, inputs)
    assert out.probabilities.dtype == jnp.float32
    difference = np.abs(out.probabilities - exact.probabilities).max()
    assert 0 < difference < 0.05


def test_every_product_of_the_highest_precision_is_one_of_float32():
    def products(dtype):
        config = small(dtype=dtype)
        apply = partial(ASTRA(config).apply, inputs=random_inputs(config, 1))
        text = str(jax.make_jaxpr(apply)({"params": abstract(config)}))
        return text.count("dot_general[") + text.count("conv_general_dilated["), text.count(HIGHEST)

    (count, highest), (_, unasked) = products("float32_highest"), products("float32")
    assert (highest, unasked) == (count, 0) and count > 50


def test_initial_values_are_the_published_ones():
    params = fresh_params(small(dim=64, heads=8, feed_forward=128), seed=3)
    attention = params["encoder"]["layer_0"]["self_attention"]
    assert_uniform(attention["query"]["kernel"], np.sqrt(6 / (4 * 64)))
    assert_uniform(attention["out"]["kernel"], 1 / np.sqrt(64))
    assert not np.any(attention["value"]["bias"]) and not np.any(attention["out"]["bias"])
    hidden = params["encoder"]["layer_1"]["feed_forward"]["output"]["dense"]
    assert_uniform(hidden["kernel"], 1 / np.sqrt(128))
    assert_uniform(hidden["bias"], 1 / np.sqrt(128))
    assert_uniform(params["audio"]["vggish"]["conv_2"]["kernel"], 1 / np.sqrt(9 * 2))
    for code in (params["decoder"]["queries"], params["source_0"]["time_code"]):
        assert 0 <= code.min() < 0.1 and 0.9 < code.max() < 1
    first, second = (params["encoder"][f"layer_{i}"]["self_attention"] for i in range(2))
    assert np.any(first["query"]["kernel"] != second["query"]["kernel"])


def assert_uniform(array, bound):
    assert np.abs(array).max() <= bound
    assert np.abs(array).max() > 0.8 * bound
    assert np.std(array) == pytest.approx(bound / np.sqrt(3), rel=0.25)


def test_sinusoidal_codes_and_queries_share_one_clock():
    config = small(codes="sinusoidal", dim=32)
    params = fresh_params(config)
    queries, rows = params["decoder"]["queries"], params["source_0"]["time_code"]
    # 20 positions, 10 rows, 20 rows, 10 segments of 0.96 s in a clip of 10 s.
    np.testing.assert_allclose(queries[::2], rows, atol=1e-6)
    np.testing.assert_allclose(queries, params["source_1"]["time_code"], atol=1e-6)
    nearest = np.argmax(params["audio"]["time_code"] @ queries.T, axis=1)
    np.testing.assert_array_equal(nearest, np.round(np.arange(10) * 0.96 * 2))


def test_an_unknown_kind_of_codes_is_named():
    with pytest.raises(UserError, match="codes"):
        small(codes="learned")


@pytest.mark.parametrize(
    "changes", [{"heads": 3}, {"audio": AudioConfig(frames=50)}, {"encoder_layers": 9}]
)
def test_sizes_that_do_not_fit_are_user_errors(changes):
    with pytest.raises(UserError):
        small(**changes)


def test_segments_are_those_of_the_papers_formula():
    assert [segments_of_layer(i, 3) for i in range(3)] == [4, 2, 1]
    assert [segments_of_layer(i, 4) for i in range(4)] == [8, 4, 2, 1]


def test_each_stream_is_cut_on_its_own_and_the_last_segment_takes_the_rest():
    index, used, slot = segment_slots((250, 52), 4)
    members = [row[keep] for row, keep in zip(index, used, strict=True)]
    assert [len(own) for own in members] == [62 + 13, 62 + 13, 62 + 13, 64 + 13]
    np.testing.assert_array_equal(members[1], [*range(62, 124), *range(263, 276)])
    np.testing.assert_array_equal(members[3], [*range(186, 250), *range(289, 302)])
    np.testing.assert_array_equal(index.reshape(-1)[slot], np.arange(302))


def test_a_token_sees_its_own_segment_only():
    config = small(encoder_layers=2, dropout=0.0)
    encoder = Encoder(config)
    rng = np.random.default_rng(0)
    streams = tuple(jnp.asarray(rng.normal(size=(1, n, 16))) for n in (10, 5))
    # The second layer sees all, so look at one layer: of two, the first cuts into 2 segments.
    params = encoder.init(jax.random.key(0), streams, None)["params"]
    one = {"layer_0": params["layer_0"]}
    layer_only = Encoder(small(encoder_layers=1, hierarchical=False))
    halves = [(streams[0][:, :5], streams[1][:, :2]), (streams[0][:, 5:], streams[1][:, 2:])]
    first, second = (layer_only.apply({"params": one}, half, None) for half in halves)
    x = jnp.concatenate([first[:, :5], second[:, :5], first[:, 5:], second[:, 5:]], axis=1)
    whole = Encoder(small(encoder_layers=1, hierarchical=False)).apply(
        {"params": {"layer_0": params["layer_1"]}}, (x,), None
    )
    got = encoder.apply({"params": params}, streams, None)
    np.testing.assert_allclose(got, whole, atol=1e-5)


def flops(function, *arguments):
    return jax.jit(function).lower(*arguments).compile().cost_analysis()["flops"]


def test_a_hierarchical_layer_costs_what_its_segments_cost():
    config = small(dim=32, dropout=0.0)
    layer = EncoderLayer(config)
    x = jnp.zeros((2, 256, 32))
    params = layer.init(jax.random.key(0), x, None, False)["params"]

    def cost(tokens):
        return flops(lambda x: layer.apply({"params": params}, x, None, False), x[:, :tokens])

    def encoder_cost(**changes):
        encoder = Encoder(small(dim=32, dropout=0.0, encoder_layers=3, **changes))
        shapes = jax.eval_shape(encoder.init, jax.random.key(0), (x,), None)
        return flops(lambda p, x: encoder.apply(p, (x,), None), shapes, x)

    expected = 4 * cost(64) + 2 * cost(128) + cost(256)
    assert encoder_cost() == pytest.approx(expected, rel=0.02)
    assert encoder_cost(hierarchical=False) == pytest.approx(3 * cost(256), rel=0.02)
    assert expected < 0.75 * 3 * cost(256)


def test_attention_never_sees_what_is_masked():
    params = fresh_params(SMALL)
    inputs = random_inputs(SMALL, 2)
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
    params = fresh_params(SMALL)
    inputs = random_inputs(SMALL, 2)
    plain = predict(SMALL, params, inputs)
    masked = predict(SMALL, params, inputs | {"masks": full_masks(inputs)})
    np.testing.assert_allclose(plain.probabilities, masked.probabilities, atol=1e-5)


def test_a_clip_with_nothing_in_it_gives_finite_predictions():
    params = fresh_params(SMALL)
    inputs = random_inputs(SMALL, 1)
    masks = jax.tree.map(np.zeros_like, full_masks(inputs))
    out = predict(SMALL, params, inputs | {"masks": masks})
    assert np.isfinite(out.probabilities).all()


def test_temporal_switch_swaps_neighbours_and_loses_no_step():
    order = np.asarray(switched_order(jax.random.key(0), 400, 51, 0.3))
    np.testing.assert_array_equal(np.sort(order, axis=1), np.tile(np.arange(51), (400, 1)))
    moves = order - np.arange(51)
    assert set(np.unique(moves)) == {-1, 0, 1}
    # A step forward is always answered by its neighbour's step back.
    rows, columns = np.nonzero(moves == 1)
    assert (moves[rows, columns + 1] == -1).all()
    # Swap probability r visits 1 / (1 + r) of the steps: r / (1 + r) swaps a step.
    assert (moves == 1).mean() == pytest.approx(0.3 / 1.3 * 50 / 51, rel=0.05)
    assert len({tuple(row) for row in order.tolist()}) > 390


def test_a_sure_switch_swaps_every_pair():
    order = np.asarray(switched_order(jax.random.key(0), 1, 7, 1.0))
    np.testing.assert_array_equal(order[0], [1, 0, 3, 2, 5, 4, 6])


def test_temporal_dropout_replaces_whole_steps_by_the_learned_vector():
    steps, learned = jnp.ones((50, 40, 3)), jnp.array([5.0, 6.0, 7.0])
    out = np.asarray(temporal_dropout(jax.random.key(0), steps, learned, 0.5))
    replaced = (out == np.asarray(learned)).all(axis=2)
    kept = (out == 1).all(axis=2)
    assert (replaced | kept).all()
    assert replaced.mean() == pytest.approx(0.5, abs=0.05)
    assert len({tuple(row) for row in replaced.tolist()}) == 50


def test_augmentation_and_dropout_act_in_training_only():
    params = jax.tree.map(jnp.asarray, fresh_params(SMALL))
    inputs = random_inputs(SMALL, 2)

    @jax.jit
    def train(seed):
        keys = jax.random.split(jax.random.key(seed))
        rngs = {"dropout": keys[0], "augment": keys[1]}
        return ASTRA(SMALL).apply({"params": params}, inputs, train=True, rngs=rngs).probabilities

    np.testing.assert_array_equal(train(1), train(1))
    assert np.any(train(1) != train(2))
    first, second = (predict(SMALL, params, inputs).probabilities for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_rates_of_zero_leave_no_learned_vector():
    params = abstract(small(temporal_dropout=0.0))
    assert "dropped_step" not in params["source_0"]
    assert "dropped_step" in abstract(SMALL)["audio"]


def test_example_inputs_fit_the_model():
    shapes = jax.tree.map(jnp.shape, example_inputs(SMALL)["features"])
    assert shapes == ((1, 10, 10), (1, 20, 3))


def test_a_class_prior_starts_the_heads_probabilities_there():
    config = small(class_prior=0.02)
    params = fresh_params(config)
    out = predict(config, params, random_inputs(config, 2)).probabilities
    np.testing.assert_allclose(out[..., 1:], 0.02, atol=0.01)
    np.testing.assert_allclose(out[..., 0], 0.98, atol=0.01)


def test_aligned_attention_looks_at_its_own_time_first():
    def nearest_to_own_time(aligned):
        config = small(
            codes="sinusoidal", aligned_attention=aligned, dim=64, hierarchical=False, audio=None
        )
        params = fresh_params(config)
        inputs = random_inputs(config, 1)
        _, state = ASTRA(config).apply(
            {"params": params}, inputs, capture_intermediates=lambda module, _: True
        )
        layer = state["intermediates"]["decoder"]["layer_0"]
        query, key = (layer["cross_attention"][n]["__call__"][0] for n in ("query", "key"))
        # Tokens of the second source: 20 behind the 20 of the first.
        logits = np.einsum("cqhd,ckhd->qk", query, key)[:, 20:]
        return np.abs(np.argmax(logits, axis=1) - np.arange(20)).mean()

    assert nearest_to_own_time(True) < 3
    assert nearest_to_own_time(False) > 3
