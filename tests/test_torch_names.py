"""The table of published names: its parameters are those of our model, whatever its parts."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from astra_jax.errors import join_some, one_line
from astra_jax.model import AudioConfig, ModelConfig, SourceConfig
from astra_jax.model.initial_values import init_params
from astra_jax.torch_import.checkpoint import from_state_dict
from astra_jax.torch_import.names import Sizes, shapes_of, table_of

AUDIO = AudioConfig(frames=4 * 96, mels=32, channels=(2, 3, 4, 4, 5, 6), hidden=7)
PLAIN = ModelConfig(
    sources=(SourceConfig(11, (5, 3)),),
    positions=12,
    classes=3,
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
    fresh = jax.eval_shape(lambda: init_params(config, jax.random.key(0)))
    expected = {path: (leaf.shape, leaf.dtype) for path, leaf in flat(fresh).items()}
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


def test_of_many_items_some_are_named_and_the_others_counted():
    assert join_some([], 2) == ""
    assert join_some(("a", "b"), 2) == "a, b"
    assert join_some(["a", "b", "c", "d", "e"], 2) == "a, b and 3 more"


def test_an_errors_text_is_one_line_and_its_type_where_it_has_none():
    assert one_line(ValueError("of two\n  lines")) == "of two lines"
    assert one_line(KeyboardInterrupt()) == "KeyboardInterrupt"
    assert one_line("a" * 300) == "a" * 200
    assert one_line("a b", most=1) == "a"
