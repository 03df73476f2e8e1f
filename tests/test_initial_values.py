"""What parameters start as: the published values, and those of other configs."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict
from helpers.compilations import counted_compilations
from helpers.models import SMALL, random_inputs

from astra_jax.model import ASTRA, SpottingModel
from astra_jax.model.heads import PlainHead
from astra_jax.model.initial_values import adjust_initial_values
from astra_jax.model.interface import example_inputs
from astra_jax.model.layers import symmetric_uniform


def small(**changes):
    return dataclasses.replace(SMALL, **changes)


def start(config, *paths, seed=0):
    """The fresh parameters whose paths begin so."""
    params = flatten_dict(ASTRA(config).initial_params(seed), sep="/")
    return {path: leaf for path, leaf in params.items() if path.startswith(paths)}


def test_initial_values_are_the_published_ones():
    config = small(dim=64, heads=8, feed_forward=128)
    layers = [f"encoder/layer_{i}" for i in range(2)]
    attention, hidden = f"{layers[0]}/self_attention", f"{layers[1]}/feed_forward/output/dense"
    codes = ("decoder/queries", "source_0/time_code")
    convolution, query = "audio/vggish/conv_2/kernel", f"{layers[1]}/self_attention/query"
    params = start(config, attention, hidden, query, convolution, *codes, seed=3)
    assert_uniform(params[f"{attention}/query/kernel"], np.sqrt(6 / (4 * 64)))
    assert_uniform(params[f"{attention}/out/kernel"], 1 / np.sqrt(64))
    assert not np.any(params[f"{attention}/value/bias"])
    assert not np.any(params[f"{attention}/out/bias"])
    assert_uniform(params[f"{hidden}/kernel"], 1 / np.sqrt(128))
    assert_uniform(params[f"{hidden}/bias"], 1 / np.sqrt(128))
    assert_uniform(params[convolution], 1 / np.sqrt(9 * 2))
    for code in (params[path] for path in codes):
        assert 0 <= code.min() < 0.1 and 0.9 < code.max() < 1
    assert np.any(params[f"{attention}/query/kernel"] != params[f"{query}/kernel"])


def assert_uniform(array, bound):
    assert np.abs(array).max() <= bound
    assert np.abs(array).max() > 0.8 * bound
    assert np.std(array) == pytest.approx(bound / np.sqrt(3), rel=0.25)


def test_sinusoidal_codes_and_queries_share_one_clock():
    paths = ("decoder/queries", *(f"{of}/time_code" for of in ("source_0", "source_1", "audio")))
    params = start(small(codes="sinusoidal", dim=32), *paths)
    queries, first, second, audio = (params[path] for path in paths)
    # 20 positions, 10 rows, 20 rows, 10 segments of 0.96 s in a clip of 10 s.
    np.testing.assert_allclose(queries[::2], first, atol=1e-6)
    np.testing.assert_allclose(queries, second, atol=1e-6)
    nearest = np.argmax(audio @ queries.T, axis=1)
    np.testing.assert_array_equal(nearest, np.round(np.arange(10) * 0.96 * 2))


def test_a_class_prior_starts_the_heads_probabilities_there():
    config = small(class_prior=0.02)
    params = start(config, "classification_head")
    # What the decoder's last LayerNorm gives the head.
    evolved = np.random.default_rng(0).normal(size=(2, 20, 16)).astype(np.float32)
    head = unflatten_dict(params, sep="/")["classification_head"]
    logits = PlainHead(config).apply({"params": head}, jnp.asarray(evolved), False)
    out = jax.nn.sigmoid(logits)
    np.testing.assert_allclose(out[..., 1:], 0.02, atol=0.01)
    np.testing.assert_allclose(out[..., 0], 0.98, atol=0.01)


def test_aligned_attention_looks_at_its_own_time_first():
    sizes = {"dim": 64, "hierarchical": False, "encoder_layers": 1, "decoder_layers": 1}
    plain = small(codes="sinusoidal", audio=None, **sizes)
    inputs = random_inputs(plain, 1)

    @jax.jit
    def look(params):
        seen = []

        def note(call, args, kwargs, context):
            if context.module.name == "cross_attention" and context.method_name == "__call__":
                seen.extend(args[:2])
            return call(*args, **kwargs)

        with nn.intercept_methods(note):
            ASTRA(plain).apply({"params": params}, inputs)
        weights = params["decoder"]["layer_0"]["cross_attention"]
        query, key = (
            jnp.einsum("cld,dhp->clhp", x, weights[name]["kernel"])
            for name, x in zip(("query", "key"), seen, strict=True)
        )
        # Tokens of the second source: 20 after the 20 of the first.
        return jnp.einsum("cqhp,ckhp->qk", query, key)[:, 20:]

    def nearest_to_own_time(params):
        return np.abs(np.argmax(look(params), axis=1) - np.arange(20)).mean()

    params = ASTRA(plain).initial_params(0)
    assert nearest_to_own_time(params) > 3
    aligned = dataclasses.replace(plain, aligned_attention=True)
    assert nearest_to_own_time(adjust_initial_values(params, aligned)) < 3


def test_a_start_hangs_on_the_seed_and_the_parameters_own_path_alone():
    config = small(audio=None)
    params = start(config, "", seed=5)
    fewer = start(
        dataclasses.replace(config, decoder_layers=1, sources=SMALL.sources[:1]), "", seed=5
    )
    assert len(fewer) < len(params)
    for path in fewer:
        np.testing.assert_array_equal(fewer[path], params[path])
    other = start(config, "", seed=6)
    drawn = [path for path, values in params.items() if np.std(values) > 0]
    assert not any(np.array_equal(params[path], other[path]) for path in drawn)
    assert len({params[path].flat[0] for path in drawn}) == len(drawn)


@pytest.mark.parametrize("changes", [{}, {"shortcut_reach": 4.0}, {"remat": True, "norm": "pre"}])
def test_a_start_compiles_nothing_and_is_distributed_as_flax_s_own(changes):
    model = ASTRA(small(codes="sinusoidal", dim=64, encoder_layers=1, decoder_layers=1, **changes))
    by_jax = flatten_dict(
        jax.jit(lambda key: model.init(key, example_inputs(model.config)))(jax.random.key(0)),
        sep="/",
    )
    with counted_compilations() as compiled:
        drawn = flatten_dict({"params": model.initial_params(0)}, sep="/")
    assert compiled == []
    assert drawn.keys() == by_jax.keys()
    for path, values in drawn.items():
        expected = np.asarray(by_jax[path])
        assert isinstance(values, np.ndarray) and values.dtype == np.float32
        assert values.shape == expected.shape
        if values.size > 100 and np.std(expected) > 0:  # enough of them to be compared
            assert np.std(values) == pytest.approx(np.std(expected), rel=0.2)
            assert np.ptp(values) == pytest.approx(np.ptp(expected), rel=0.1)
            assert np.mean(values) == pytest.approx(
                np.mean(expected), abs=0.2 * float(np.ptp(expected))
            )
        elif np.std(expected) == 0:
            np.testing.assert_array_equal(values, expected)


def test_a_parameter_of_another_initialiser_is_drawn_by_jax():
    class Mixed(SpottingModel):
        @nn.compact
        def __call__(self, inputs, train=False):
            ours = self.param("ours", symmetric_uniform(1.0), (3,))
            return ours + self.param("theirs", nn.initializers.normal(), (3,))

    model = Mixed(small(audio=None))
    first, again, other = (model.initial_params(seed) for seed in (0, 0, 1))
    assert all(isinstance(leaf, np.ndarray) for leaf in first.values())
    for name in ("ours", "theirs"):
        np.testing.assert_array_equal(first[name], again[name])
        assert np.all(first[name] != other[name])
