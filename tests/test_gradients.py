"""Gradient accumulation: parts of a batch give what the whole gives, with less memory."""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np
import optax
import pytest
from flax import linen as nn
from helpers.models import LOSS, TINY, random_batch, random_params

from astra_jax.config import paper
from astra_jax.devices import batch_sharding, make_mesh, replicated
from astra_jax.errors import UserError
from astra_jax.model import ASTRA, Predictions, SpottingModel
from astra_jax.training.gradients import make_gradients
from astra_jax.training.loop import TrainingConfig
from astra_jax.training.packing import pack
from astra_jax.training.state import TrainState
from astra_jax.training.step import make_train_step

RATES = ("dropout", "embedding_dropout", "head_dropout", "temporal_dropout", "temporal_switch")
CONFIG = dataclasses.replace(TINY, **dict.fromkeys(RATES, 0.0))
MODEL = ASTRA(CONFIG)


def batch(mesh, clips=32):
    """A batch whose clips differ much in their number of displacement targets."""
    arrays = random_batch(CONFIG, clips)
    share = np.linspace(0, 1, clips)[:, None, None]
    shape = arrays["displacement_mask"].shape
    arrays["displacement_mask"] = np.random.default_rng(0).random(shape) < share
    return jax.device_put(arrays, batch_sharding(mesh))


@functools.cache
def compiled(parts, loss=LOSS, model=MODEL, devices=8, clips=32):
    """The compiled gradients, and what they are computed of."""
    mesh = make_mesh(jax.devices()[:devices])
    everywhere = replicated(mesh)
    of = jax.jit(make_gradients(model, loss, mesh, parts), out_shardings=everywhere)
    params = jax.device_put(random_params(model), everywhere)
    arguments = (params, batch(mesh, clips), jax.random.key(7))
    return of.lower(*arguments).compile(), arguments


@functools.cache
def compiled_step():
    """A compiled step in four parts over eight devices, plain gradient descent at rate 1."""
    mesh, optimizer = make_mesh(), optax.sgd(1.0)
    everywhere = replicated(mesh)
    params = jax.device_put(random_params(MODEL), everywhere)
    state = TrainState(
        np.int32(0),
        np.array([0, 7], np.uint32),
        params,
        optimizer.init(pack(params)),
        np.zeros(3, np.float32),
        np.zeros(3, np.int32),
    )
    arguments = jax.device_put(state, everywhere), batch(mesh)
    step = make_train_step(MODEL, LOSS, optimizer, 10, mesh, accumulation_steps=4)
    return step.lower(*arguments).compile(), arguments


def assert_close(tree, expected):
    """Within 1e-6 of the largest entry of all."""
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected))
    assert largest > 0.1
    for ours, theirs in zip(jax.tree.leaves(tree), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6 * max(1, largest))


def test_a_step_in_parts_over_eight_devices_is_the_step_of_the_whole_batch():
    assert jax.device_count() == 8
    whole, (params, clips, key) = compiled(1)
    gradients, values = whole(params, clips, key)
    expected = jax.tree.map(lambda a, b: np.asarray(a) - np.asarray(b), params, gradients)
    step, arguments = compiled_step()
    state, found = step(*arguments)
    np.testing.assert_allclose(found.losses, values, rtol=1e-5)
    assert_close(jax.device_get(state.params), expected)


def test_no_clip_moves_to_another_device():
    program = compiled_step()[0].as_text()
    assert "all-reduce" in program  # the gradients are summed over the devices
    for moving in ("all-gather", "all-to-all", "collective-permute"):
        assert moving not in program


def test_a_batch_in_parts_gives_the_same_gradients_with_less_memory():
    whole, arguments = compiled(1, devices=1, clips=512)
    in_parts, _ = compiled(8, devices=1, clips=512)
    sizes = [of.memory_analysis().temp_size_in_bytes for of in (in_parts, whole)]
    assert sizes[0] < 0.4 * sizes[1]
    assert_close(in_parts(*arguments), whole(*arguments))


class Dropping(SpottingModel):
    """As little as draws dropout."""

    @nn.compact
    def __call__(self, inputs: dict[str, Any], train: bool = False) -> Predictions:
        rows = nn.Dropout(0.5, deterministic=not train)(inputs["features"][0])
        scores = nn.Dense(self.config.num_classes + 1)(rows)
        return Predictions(nn.sigmoid(scores), scores, scores)


def test_the_parts_draw_dropout_from_keys_of_their_own():
    model = Dropping(CONFIG)
    in_parts, (params, clips, key) = compiled(2, model=model, devices=1, clips=2)
    same = jax.tree.map(lambda array: np.repeat(np.asarray(array)[:1], 2, axis=0), clips)
    one, _ = compiled(1, model=model, devices=1, clips=1)
    first, second = (
        one(params, jax.tree.map(lambda array: array[:1], same), jax.random.fold_in(key, part))[1]
        for part in range(2)
    )
    assert abs(first[0] - second[0]) > 1e-3
    np.testing.assert_allclose(in_parts(params, same, key)[1], (first + second) / 2, rtol=1e-5)


def test_a_batch_that_its_parts_cannot_share_is_named():
    training = TrainingConfig.from_config(
        paper().training.to_dict() | {"batch_size": 16, "accumulation_steps": 2}
    )
    training.check_devices(8)
    in_three = dataclasses.replace(training, accumulation_steps=3)
    with pytest.raises(UserError, match=r"in 3 parts .*choose a multiple of 24") as error:
        in_three.check_devices(8)
    assert "\n" not in str(error.value)
