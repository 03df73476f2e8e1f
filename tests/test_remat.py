"""Rematerialisation: the same model and the same training, with less memory."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.models import full_masks, random_batch, random_like, settings_of

from astra_jax.config import paper
from astra_jax.devices import make_mesh, replicated
from astra_jax.model import ASTRA, ModelConfig, SourceShape, VGGishConfig, abstract_params
from astra_jax.model.transformer import Decoder, Encoder
from astra_jax.model.vggish import VGGish
from astra_jax.training.gradients import make_gradients

MODEL = ModelConfig(
    sources=(SourceShape(16, (3,)),),
    positions=64,
    audio=VGGishConfig(frames=64, mels=16, segment_frames=16, channels=(16,) * 6, hidden=8),
    dim=8,
    heads=2,
    feed_forward=32,
    encoder_layers=3,
    decoder_layers=2,
    hierarchical=False,
    dropout=0.3,
)
AGAIN = dataclasses.replace(MODEL, remat=True)


def inputs_of(part):
    rng = np.random.default_rng(2)
    if part is VGGish:
        return (jnp.asarray(rng.normal(size=(4, 2, 16, 16)), jnp.float32),)
    tokens = jnp.asarray(rng.normal(size=(8, 64, 8)), jnp.float32)
    return ((tokens,) if part is Encoder else tokens), None, True


def built(part, config):
    return part(config, config.audio) if part is VGGish else part(config)


def loss_of(part, config):
    """A sum over the outputs of one part of the model in training, and the outputs."""

    def loss(params):
        rngs = {"dropout": jax.random.key(1)}
        out = built(part, config).apply({"params": params}, *inputs_of(part), rngs=rngs)
        return jnp.sum(jnp.square(out)), out

    return loss


def start(part, config, key):
    return built(part, config).init(key, *inputs_of(part))["params"]


def random_params(part, config):
    return random_like(jax.eval_shape(lambda key: start(part, config, key), jax.random.key(0)))


@pytest.mark.parametrize(("part", "share"), [(Encoder, 0.4), (Decoder, 0.4), (VGGish, 0.8)])
def test_less_is_kept_for_the_backward_pass(part, share):
    """Counted before XLA: its CPU compiler computes again, but too early to save memory.

    VGGish's operations keep little as they are.
    """

    def kept(config):
        loss = loss_of(part, config)
        backward = jax.eval_shape(
            lambda p: jax.vjp(lambda p: loss(p)[0], p)[1], random_params(part, MODEL)
        )
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(backward))

    assert kept(AGAIN) < share * kept(MODEL)


@pytest.mark.parametrize("part", [Encoder, Decoder, VGGish])
def test_outputs_and_gradients_are_the_same(part):
    """With dropout: the backward pass draws it as the forward pass did."""
    fewer = {"encoder_layers": 2, "decoder_layers": 1}
    kept, again = (dataclasses.replace(config, **fewer) for config in (MODEL, AGAIN))
    params = random_params(part, kept)
    ((_, expected), gradients), ((_, out), found) = (
        jax.jit(jax.value_and_grad(loss_of(part, config), has_aux=True))(params)
        for config in (kept, again)
    )
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(gradients))
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(gradients), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6 * largest)


@pytest.mark.parametrize("part", [Encoder, VGGish])
def test_the_parameters_and_their_start_are_the_same(part):
    key = jax.random.key(0)
    one_layer = (dataclasses.replace(config, encoder_layers=1) for config in (MODEL, AGAIN))
    first, second = (
        jax.jit(lambda key, c=config: start(part, c, key))(key) for config in one_layer
    )
    assert jax.tree.structure(first) == jax.tree.structure(second)
    for ours, theirs in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_papers_model_at_its_real_size_takes_remat_in_parts():
    config = paper()
    config.model.remat = True
    settings, mesh = settings_of(config), make_mesh(jax.devices()[:1])
    model = ASTRA(settings.model)
    gradients = make_gradients(model, settings.loss, mesh, parts=2)
    params, batch = abstract_params(model, replicated(mesh)), random_batch(settings.model, clips=2)
    batch = jax.eval_shape(lambda: batch | {"masks": full_masks(batch)})
    found, _ = jax.eval_shape(gradients, params, batch, jax.random.key(0))
    assert jax.tree.map(jnp.shape, found) == jax.tree.map(jnp.shape, params)
