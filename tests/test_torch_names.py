"""The table of published names: its parameters are those of our model, whatever its parts."""

import dataclasses
import itertools

import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from helpers.models import shapes_of as shapes_of_model

from astra_jax.model import ASTRA, ModelConfig, SourceShape, VGGishConfig
from astra_jax.torch_import import from_state_dict
from astra_jax.torch_import.names import Sizes, shapes_of, table_of

AUDIO = VGGishConfig(frames=4 * 96, mels=32, channels=(2, 3, 4, 4, 5, 6), hidden=7)
PLAIN = ModelConfig(
    sources=(SourceShape(11, (5, 3)),),
    positions=12,
    num_classes=3,
    dim=8,
    heads=4,
    feed_forward=9,
    decoder_layers=2,
    dtype="float32_highest",
)
PARTS = {"audio": AUDIO, "uncertainty": True, "temporal_dropout": 0.5}
WITHOUT = {"audio": None, "uncertainty": False, "temporal_dropout": 0.0}


@pytest.fixture(
    params=[names for n in range(4) for names in itertools.combinations(PARTS, n)],
    ids=lambda names: ", ".join(names) or "plain",
)
def config(request: pytest.FixtureRequest) -> ModelConfig:
    parts = WITHOUT | {name: PARTS[name] for name in request.param}
    switch = 0.3 if parts["temporal_dropout"] else 0.0
    return dataclasses.replace(PLAIN, temporal_switch=switch, **parts)


def test_the_table_has_every_parameter_of_the_model_once_and_in_its_shape(config):
    fresh = flat(shapes_of_model(ASTRA(config)))
    expected = {path: (leaf.shape, leaf.dtype) for path, leaf in fresh.items()}
    entries = table_of(Sizes.of(config), config.heads)
    assert sorted(entry.path for entry in entries) == sorted(expected)
    for entry in entries:
        ours = entry.to_ours(np.zeros(entry.shape, np.float32))
        assert (ours.shape, ours.dtype) == expected[entry.path], entry
    state = {name: np.zeros(shape, np.float32) for name, shape in shapes_of(entries).items()}
    read, params = from_state_dict(state, config.heads)
    assert read == config
    assert {path: (leaf.shape, leaf.dtype) for path, leaf in flat(params).items()} == expected


def test_every_value_of_a_tensor_goes_into_one_parameter(config):
    values = itertools.count()
    entries = table_of(Sizes.of(config), config.heads)
    shapes = shapes_of(entries)
    state = {
        name: np.fromiter(itertools.islice(values, int(np.prod(shape))), int).reshape(shape)
        for name, shape in shapes.items()
    }
    _, params = from_state_dict(state, config.heads)
    found = np.concatenate([leaf.ravel() for leaf in flat(params).values()])
    np.testing.assert_array_equal(np.sort(found), np.arange(next(values)))


def flat(params):
    return flatten_dict(params, sep="/")
