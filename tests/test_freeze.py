"""Frozen parameters: they stay what they are, and cost no moments and no way back."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from helpers.models import LOSS, TINY, random_batch, random_params, settings_of

from astra_jax.config import paper
from astra_jax.config.check import check
from astra_jax.config.load import load_config
from astra_jax.config.saved import from_json, to_json
from astra_jax.devices import make_mesh, replicated
from astra_jax.errors import UserError
from astra_jax.model import ASTRA, Predictions, SpottingModel, VGGishConfig, abstract_params
from astra_jax.training.freezing import check_freeze, combine, partition
from astra_jax.training.gradients import make_gradients
from astra_jax.training.optimizer import make_optimizer
from astra_jax.training.packing import pack
from astra_jax.training.state import init_state
from astra_jax.training.step import make_train_step

AUDIO = VGGishConfig(frames=64, mels=16, segment_frames=16, channels=(2,) * 6, hidden=8)
OF_ASTRA = ("source_0/*", "*/queries", "displacement_head/*/kernel")
FREEZE = ("first/*", "*d/kernel")
PARAMS = {"a": {"kernel": 1, "bias": 2}, "b": {"kernel": 3}}


def batch():
    return random_batch(TINY, clips=2)


# Which they are


@pytest.mark.parametrize(
    ("patterns", "frozen"),
    [
        ((), {"a": {"kernel": None, "bias": None}, "b": {"kernel": None}}),
        (("a/*",), {"a": {"kernel": 1, "bias": 2}, "b": {"kernel": None}}),
        (("*kernel",), {"a": {"kernel": 1, "bias": None}, "b": {"kernel": 3}}),
        (("a/bias", "b/k*l"), {"a": {"kernel": None, "bias": 2}, "b": {"kernel": 3}}),
    ],
)
def test_patterns_part_whole_paths_and_what_is_parted_combines(patterns, frozen):
    trained, found = partition(PARAMS, patterns)
    assert found == frozen and combine(trained, found) == PARAMS
    assert sorted(jax.tree.leaves(trained) + jax.tree.leaves(found)) == [1, 2, 3]


@pytest.mark.parametrize(
    ("patterns", "words"),
    [
        (("a/*", "c/*"), "'c/*' matches no parameter of the model: write a whole path"),
        (("a",), "'a' matches no parameter"),
        (("A/*",), "'A/*' matches no parameter"),
        (("c",), "they begin with a, b"),
        (("a/*", "b/*"), "'a/*', 'b/*' leaves no parameter to train"),
    ],
)
def test_a_pattern_for_nothing_and_patterns_for_everything_are_one_line(patterns, words):
    with pytest.raises(UserError) as error:
        check_freeze(PARAMS, patterns)
    assert str(error.value).startswith("config.freeze: ") and words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("value", "patterns"),
    [("('audio/*','source_0/*')", ("audio/*", "source_0/*")), ("audio/*", ("audio/*",))],
)
def test_patterns_come_from_the_command_line_and_are_kept(value, patterns, tmp_path):
    config = load_config("configs/astra.py", [f"--config.freeze={value}"])
    check(config)
    (tmp_path / "config.json").write_text(to_json(config), encoding="utf-8")
    assert config.freeze == from_json(tmp_path / "config.json").freeze == patterns


@pytest.mark.parametrize(
    ("value", "words"), [("audio/*", "freeze: .* a list"), ((3,), r"freeze\[0\]: 3, .* a text")]
)
def test_patterns_that_are_none_are_named(value, words):
    config = paper()
    with config.ignore_type():
        config.freeze = value
    with pytest.raises(UserError, match=rf"^config\.{words}"):
        check(config)


# The step


class TwoLayers(SpottingModel):
    """As little as can be frozen in part."""

    @nn.compact
    def __call__(self, inputs: dict[str, Any], train: bool = False) -> Predictions:
        hidden = nn.tanh(nn.Dense(5, name="first")(inputs["features"][0]))
        scores, mean = (nn.Dense(3, name=name)(hidden) for name in ("second", "third"))
        return Predictions(nn.sigmoid(scores), mean, scores)


@functools.cache
def states():
    """The state before and after a step, and after a second one of NaN; 2 parts, an average."""
    config = paper()
    config.optimizer.update(learning_rate=1e-2, warmup_epochs=0, weight_decay=0.5, clip_norm=1.0)
    optimizer = make_optimizer(settings_of(config).optimizer, 10)
    model, mesh = TwoLayers(TINY), make_mesh(jax.devices()[:1])
    state = init_state(model, optimizer, 0, mesh, averaged=True, freeze=FREEZE)
    step = make_train_step(model, LOSS, optimizer, 10, mesh, 0.9, 2, FREEZE)
    found = [jax.device_get(state)]
    spoiled = batch() | {"features": (np.full((2, 4, 3), np.nan, np.float32),)}
    for of_step in (batch(), spoiled):
        state, told = step(state, of_step)
        found.append(jax.device_get(state))
    assert told.skipped.tolist() == [1, 1, 1]
    return found


def test_frozen_parameters_stay_to_the_bit_and_all_others_move():
    before, after, _ = states()
    for ours, theirs in ((after.params, before.params), (after.average, before.average)):
        moved = jax.tree.map(lambda a, b: bool((a != b).any()), ours, theirs)
        trained, frozen = partition(moved, FREEZE)
        assert jax.tree.leaves(trained) == [True] * 2 and jax.tree.leaves(frozen) == [False] * 4


def test_the_optimiser_holds_nothing_of_them():
    before, after, _ = states()
    trained, _ = partition(after.params, FREEZE)
    for state in (before, after):
        (moments,) = (part for part in state.optimizer if hasattr(part, "nu_max"))
        sizes = [leaf.shape for leaf in pack(trained)]
        for packed in (moments.mu, moments.nu, moments.nu_max):
            assert [leaf.shape for leaf in packed] == sizes


def test_a_step_that_is_not_finite_changes_nothing():
    _, before, after = states()
    for ours, theirs in zip(
        jax.tree.leaves((after.params, after.optimizer, after.average)),
        jax.tree.leaves((before.params, before.optimizer, before.average)),
        strict=True,
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_gradients_are_those_of_the_whole_model_where_there_are_any():
    model, mesh = ASTRA(TINY), make_mesh(jax.devices()[:1])
    arguments = random_params(model), batch(), jax.random.key(0)
    whole, expected = jax.jit(make_gradients(model, LOSS, mesh))(*arguments)
    found, values = jax.jit(make_gradients(model, LOSS, mesh, freeze=OF_ASTRA))(*arguments)
    np.testing.assert_allclose(values, expected, rtol=1e-6)
    # So the norm that clips counts the trained ones alone.
    trained, frozen = partition(whole, OF_ASTRA)
    assert len(jax.tree.leaves(frozen)) == 12
    assert jax.tree.structure(found) == jax.tree.structure(trained)
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(trained), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_the_way_back_through_a_frozen_branch_is_not_computed():
    model = ASTRA(dataclasses.replace(TINY, audio=AUDIO))
    mesh = make_mesh(jax.devices()[:1])
    params = abstract_params(model, replicated(mesh))
    arguments = (params, batch() | {"log_mel": jnp.zeros((2, 64, 16))}, jax.random.key(0))

    def flops(freeze):
        function = jax.jit(make_gradients(model, LOSS, mesh, freeze=freeze))
        return function.lower(*arguments).cost_analysis()["flops"]

    # Of nothing but the classification head the way back is short; most of the rest is VGGish's.
    whole, without, of_head = flops(()), flops(("audio/*",)), flops(("[!c]*",))
    assert whole - without > 0.8 * (whole - of_head)
