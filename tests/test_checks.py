"""Configs that can't be used: each value is named in one line."""

import math
from pathlib import Path
from typing import Any

import pytest
from ml_collections import ConfigDict

from astra_jax.config.check import RANGES, check
from astra_jax.config.defaults import paper
from astra_jax.config.load import load_config
from astra_jax.config.simulated import simulated_matches
from astra_jax.errors import UserError
from astra_jax.runs.folder import RunFolder
from astra_jax.runs.settings import Settings, resolve


def changed(key: str, value: Any) -> ConfigDict:
    """The paper's config, on simulated matches, with another value under `key`."""
    config = paper()
    config.simulation = simulated_matches()
    *groups, name = key.split(".")
    group = config
    for part in groups:
        group = group[part]
    with config.ignore_type():
        group[name] = value
    return config


def refused(config: ConfigDict) -> str:
    """The one line that `check` says."""
    with pytest.raises(UserError) as error:
        check(config)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", ["astra.py", "astra.py:visual", "demo.py", "commentary.py"])
def test_every_shipped_config_can_be_used(name, request):
    check(load_config(str(request.config.rootpath / "configs" / name)))


@pytest.mark.parametrize("key", RANGES)
def test_no_number_may_be_nan_infinite_or_a_text(key):
    for value in (math.nan, math.inf, -math.inf, "many", (1,), {"a": 1}):
        assert refused(changed(key, value)).startswith(f"config.{key}: ")


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("optimizer.learning_rate", math.nan, "nan, it must be a number above 0"),
        ("optimizer.learning_rate", math.inf, "inf, it must be a finite number above 0"),
        ("optimizer.learning_rate", 0.0, "0.0, it must be a number above 0"),
        ("optimizer.learning_rate", -1e-4, "-0.0001, it must be"),
        ("optimizer.learning_rate", None, "None, it must be"),
        ("optimizer.warmup_epochs", -1, "a whole number of at least 0"),
        ("optimizer.weight_decay", -1.0, "at least 0"),
        ("mixup.alpha", 0.0, "above 0"),
        ("mixup.beta", -1.0, "above 0"),
        ("model.dropout", 1.0, "a number of at least 0 and below 1"),
        ("model.embedding_dropout", -0.1, "at least 0 and below 1"),
        ("model.head_dropout", 1.5, "at least 0 and below 1"),
        ("model.temporal_dropout", 1.1, "at least 0 and of at most 1"),
        ("model.temporal_switch", -0.1, "at least 0 and of at most 1"),
        ("model.class_prior", 1.0, "above 0 and below 1"),
        ("model.shortcut_seconds", -1.0, "at least 0"),
        ("model.encoder_layers", 0, "a whole number of at least 1"),
        ("model.decoder_layers", 2.5, "2.5, it must be a whole number"),
        ("model.heads", 0, "at least 1"),
        ("model.dim", -8, "at least 1"),
        ("model.dim", 2**40, "a smaller whole number"),
        ("model.feed_forward", 0, "at least 1"),
        ("model.hierarchical", "yes", "'yes', it must be True or False"),
        ("model.dtype", 16, "16, it must be a text"),
        ("model.audio.init_from", 16, "16, it must be a text"),
        ("model.audio.channels", (1, 2), "six whole numbers"),
        ("seed", -1, "at least 0 and below 4294967296"),
        ("seed", 2**32, "below 4294967296"),
        ("clip.seconds", 0.0, "above 0"),
        ("clip.stride_seconds", 0.3, "at least one output position (0.5 s)"),
        ("clip.positions_per_second", -2.0, "above 0"),
        ("targets.class_radius_seconds", -1.0, "at least 0"),
        ("targets.displacement_radius_seconds", 1.0, "from class_radius_seconds (2.0)"),
        ("targets.displacement_radius_seconds", 51.0, "to clip.seconds (50.0)"),
        ("loss.classification_weight", -1.0, "at least 0"),
        ("loss.displacement_weight", -1.0, "at least 0"),
        ("optimizer.clip_norm", 0.0, "above 0"),
        ("training.batch_size", 0, "0, it must be a whole number of at least 1"),
        ("logging.tensorboard", 1, "True or False"),
        ("logging.wandb_project", 3, "a text"),
        ("training.accumulation_steps", 0, "at least 1"),
        ("training.epochs", 0, "at least 1"),
        ("training.patience_epochs", 0, "at least 1"),
        ("training.validate_every_epochs", 0, "at least 1"),
        ("training.checkpoint_every_steps", -1, "at least 0"),
        ("training.average_decay", 1.0, "at least 0 and below 1"),
        ("data.workers", -1, "at least 0"),
        ("data.labels_file", 3, "3, it must be a text"),
        ("data.root", 3, "3, it must be a text"),
        ("data.splits", "train.txt", "a mapping of names to lists"),
        ("data.splits.train", ("a", "b"), "a text file"),
        ("data", None, "None, it must be a mapping with the keys"),
        ("inference.batch_size", 0, "at least 1"),
        ("inference.stride_seconds", 0.1, "at least one output position (0.5 s)"),
        ("inference.threshold", 0.0, "above 0 and below 1"),
        ("inference.threshold", 1.0, "above 0 and below 1"),
        ("inference.suppression", "soft", "a mapping with the keys"),
        ("inference.suppression.window_scale", 0.0, "above 0"),
        ("inference.suppression.windows_seconds", 8.0, "8.0, it must be a list"),
        ("inference.suppression.windows_seconds", "8", "'8', it must be a list"),
        ("simulation", "demo", "'demo', it must be a mapping"),
        ("simulation.half_seconds", 0, "at least 1"),
        ("simulation.signals.alarm", math.nan, "nan, it must be a number"),
    ],
)
def test_a_value_that_cannot_be_used_is_named(key, value, words):
    message = refused(changed(key, value))
    assert message.startswith(f"config.{key}: ") and words in message


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("mixup.kind", "cut", "balanced, plain, none"),
        ("optimizer.schedule", "hour", "not 'epoch' or 'step'"),
    ],
)
def test_a_name_that_only_its_room_knows_is_checked_by_its_settings(key, value, words):
    resolved = resolve(changed(key, value), RunFolder(Path("run")))
    with pytest.raises(UserError) as error:
        Settings.from_config(resolved)
    assert str(error.value).startswith(f"config.{key}: ") and words in str(error.value)


@pytest.mark.parametrize("window", ["long", None, math.nan, math.inf, 0.0])
def test_a_window_that_is_no_length_is_named(window):
    config = changed("inference.suppression.windows_seconds", (8.0, window))
    assert refused(config).startswith("config.inference.suppression.windows_seconds[1]: ")


def test_a_third_of_a_second_is_a_whole_position_at_three_a_second():
    config = changed("clip.positions_per_second", 3.0)
    config.clip.stride_seconds = 1 / 3
    check(config)


@pytest.mark.parametrize(
    "key", ["model", "model.heads", "inference.suppression.kind", "simulation"]
)
def test_a_missing_key_is_named(key):
    config = paper()
    group, _, name = key.rpartition(".")
    del (config[group] if group else config)[name]
    assert refused(config).startswith(f"config.{key}: missing; ")


@pytest.mark.parametrize("key", ["sede", "model.head", "simulation.signals.alarms"])
def test_an_unknown_key_is_named(key):
    assert refused(changed(key, 1)).startswith(f"config.{key}: no such key; there are ")


@pytest.mark.parametrize("sources", [("a.npy",), None, "a.npy"])
def test_sources_that_are_no_mappings_are_one_line(sources):
    config = paper()
    config.data.root = "data"
    with config.ignore_type():
        config.data.sources = sources
    with pytest.raises(UserError, match="data.sources: .*, it must be a list of mappings"):
        Settings.from_config(resolve(config, RunFolder(Path("run"))))
