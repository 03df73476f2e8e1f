"""Where dropout falls, and that `model.dropout` reaches every site inside the transformer."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from helpers.models import random_like, settings_of

from astra_jax.config import paper
from astra_jax.model import ASTRA, ModelConfig, SourceShape
from astra_jax.model.dropout import Dropout, drop
from astra_jax.model.interface import example_inputs
from astra_jax.model.transformer import EncoderLayer
from astra_jax.training.random_bits import cheap_key


def sites(config: ModelConfig) -> list[tuple[str, float]]:
    """The part of the model and the rate of each dropout of a training step, in order."""
    found = []

    def note(call: Callable[..., Any], args: tuple, kwargs: dict, context: Any) -> Any:
        module = context.module
        # The second argument says whether it is a training step.
        if isinstance(module, Dropout) and context.method_name == "__call__" and args[1]:
            found.append((module.path[0], module.rate))
        return call(*args, **kwargs)

    def start(key: jax.Array) -> Any:
        rngs = dict.fromkeys(("params", "dropout", "augment"), key)
        return ASTRA(config).init(rngs, example_inputs(config), train=True)

    with nn.intercept_methods(note):
        jax.eval_shape(start, jax.random.key(0))
    return found


@pytest.mark.parametrize("rate", [0.1, 0.4])
def test_the_configs_dropout_is_that_of_every_site_in_the_transformer(rate):
    config = paper()
    assert config.model.dropout == 0.1
    config.model.dropout = rate
    found = sites(settings_of(config).model)

    def rates(*parts: str) -> list[float]:
        return [of_site for part, of_site in found if part in parts]

    # Attention, its output, between the linears of the feed-forward, its output: four in each of
    # three encoder layers; with the decoder's second attention six in each of three.
    assert rates("encoder") == [rate] * 12
    assert rates("decoder") == [rate] * 18
    # Five embeddings with two each, two and four in the heads: the paper's already.
    assert rates("source_0") == [0.4] * 10
    assert rates("classification_head", "displacement_head") == [0.4] * 6
    assert rates("audio") == []


def test_dropout_zeroes_its_share_and_scales_the_rest():
    source = SourceShape(4, (3,))
    config = ModelConfig((source,), positions=4, dim=64, heads=2, feed_forward=64, dropout=0.4)
    dropped = []

    def note(call: Callable[..., Any], args: tuple, kwargs: dict, context: Any) -> Any:
        out = call(*args, **kwargs)
        if isinstance(context.module, Dropout):
            before, after = (np.asarray(array) for array in (args[0], out))
            seen = after[before != 0] / before[before != 0]
            np.testing.assert_allclose(seen[seen != 0], 1 / 0.6, rtol=1e-5)
            dropped.append(np.mean(seen == 0))
        return out

    layer = EncoderLayer(config)
    x = jax.random.normal(jax.random.key(2), (4, 20, 64))
    shapes = jax.eval_shape(lambda key: layer.init(key, x, None, False), jax.random.key(0))
    params = jax.tree.map(jnp.asarray, random_like(shapes))
    with nn.intercept_methods(note):
        layer.apply(params, x, None, True, rngs={"dropout": jax.random.key(1)})
    assert len(dropped) == 4 and dropped == pytest.approx([0.4] * 4, abs=0.03)


@pytest.mark.parametrize("make_key", [cheap_key, lambda key: key])
def test_dropout_draws_the_same_with_64_bits_enabled(make_key):
    ones = jnp.ones((50, 50), jnp.float32)
    expected = drop(make_key(jax.random.key(5)), ones, 0.3)
    with jax.enable_x64(True):
        found = drop(make_key(jax.random.key(5)), ones, 0.3)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_every_rate_keeps_its_share_and_the_mean(dtype):
    ones = jnp.ones((1000, 1000), dtype)
    for rate in (0.001, 0.1, 0.5, 0.9):
        dropped = drop(cheap_key(jax.random.key(5)), ones, rate)
        assert dropped.dtype == dtype
        # Five standard deviations of a million draws.
        bound = 5 * np.sqrt(rate * (1 - rate)) / 1000
        assert abs(np.mean(np.asarray(dropped) == 0) - rate) < bound
        assert set(np.unique(np.asarray(dropped, np.float32))) <= {
            0.0,
            float(dtype(1) / dtype(1 - rate)),
            float(jnp.ones((), dtype) / (1 - rate)),
        }
