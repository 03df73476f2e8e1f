"""The hierarchical encoder: how it cuts clips, what a token sees, what a layer costs."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.models import SMALL, random_like

from astra_jax.model.transformer import Encoder, EncoderLayer, segment_slots, segments_of_layer


def encoder(**changes):
    return Encoder(dataclasses.replace(SMALL, dropout=0.0, **changes))


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


@partial(jax.jit, static_argnums=0)
def encode(encoder, params, streams):
    return encoder.apply({"params": params}, streams, None)


def test_a_token_sees_its_own_segment_only():
    rng = np.random.default_rng(0)
    streams = tuple(rng.normal(size=(1, n, 16)).astype(np.float32) for n in (10, 5))
    # The second layer sees all, so look at one layer: of two, the first cuts into 2 segments.
    both, single = encoder(encoder_layers=2), encoder(encoder_layers=1, hierarchical=False)
    shapes = jax.eval_shape(both.init, jax.random.key(0), streams, None)
    params = random_like(shapes)["params"]
    halves = [(streams[0][:, :5], streams[1][:, :2]), (streams[0][:, 5:], streams[1][:, 2:])]
    first, second = (encode(single, {"layer_0": params["layer_0"]}, half) for half in halves)
    x = np.concatenate([first[:, :5], second[:, :5], first[:, 5:], second[:, 5:]], axis=1)
    whole = encode(single, {"layer_0": params["layer_1"]}, (x,))
    np.testing.assert_allclose(encode(both, params, streams), whole, atol=1e-5)


def test_a_hierarchical_layer_costs_what_its_segments_cost():
    x = jnp.zeros((2, 256, 32))

    def flops(module, *inputs):
        shapes = jax.eval_shape(
            lambda key: module.init(key, *inputs, None, False), jax.random.key(0)
        )
        apply = jax.jit(lambda params, *inputs: module.apply(params, *inputs, None, False))
        return apply.lower(shapes, *inputs).compile().cost_analysis()["flops"]

    layer = EncoderLayer(encoder(dim=32).config)
    costs = {tokens: flops(layer, x[:, :tokens]) for tokens in (64, 128, 256)}
    expected = 4 * costs[64] + 2 * costs[128] + costs[256]
    assert flops(encoder(dim=32), (x,)) == pytest.approx(expected, rel=0.02)
    vanilla = flops(encoder(dim=32, hierarchical=False), (x,))
    assert vanilla == pytest.approx(3 * costs[256], rel=0.02)
    assert expected < 0.75 * 3 * costs[256]
