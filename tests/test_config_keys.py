"""Every key of the config decides something: another value of it gives other settings."""

import ast
import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ml_collections import ConfigDict

import astra_jax
from astra_jax.config.defaults import paper
from astra_jax.config.load import freeze, load_config
from astra_jax.config.simulated import SIMULATED_SPLITS, simulated_matches
from astra_jax.errors import UserError
from astra_jax.runs.settings import Settings

CONFIGS = (
    *("ablations.py:m0", "ablations.py:m9,demo", "astra.py", "astra.py:visual"),
    *("astra_small_data.py", "challenge.py", "challenge.py:visual,demo", "commentary.py"),
    *("demo.py", "ensemble.py", "ensemble.py:no_focal,demo"),
)
# getattr(spec, f"{split}_matches").
BY_NAME = {f"{split}_matches" for split in SIMULATED_SPLITS}


def full_config() -> ConfigDict:
    """Everything that a config can switch on."""
    config = paper()
    config.simulation = simulated_matches()
    config.data.root = "data"
    config.freeze = ("audio/*",)
    return config


def sections(config: ConfigDict, prefix: str = "") -> Iterator[tuple[str, ConfigDict]]:
    """Every mapping of the config, by what stands before the names of its keys."""
    yield prefix, config
    for key, value in config.items():
        # The names of splits are a config's choice.
        if isinstance(value, ConfigDict) and key != "splits":
            yield from sections(value, f"{prefix}{key}.")


def leaves(config: ConfigDict) -> set[str]:
    """The dotted keys that hold values."""
    inner = {prefix for prefix, _ in sections(config)}
    keys = {prefix + key for prefix, section in sections(config) for key in section}
    return {key for key in keys if f"{key}." not in inner}


SECTIONS = [prefix for prefix, _ in sections(full_config())]
KEYS = sorted(leaves(full_config()))


def another(value: Any, kind: type) -> Any:
    """Another value of a key; those that it can't have are refused by who reads it."""
    if isinstance(value, ConfigDict):
        return ConfigDict({"invented": "train"})
    if kind in (bool, tuple):
        return not value if kind is bool else value[1:]
    if kind is str:
        return "invented"
    return kind(1 if value is None else value + 1)


def settings(config: ConfigDict) -> str:
    """All that the rooms are told of the config, or what one of them says against it."""
    try:
        of_all = Settings.from_config(freeze(config))
    except UserError as error:
        return str(error)
    fields = (field.name for field in dataclasses.fields(of_all))
    return repr([getattr(of_all, name) for name in fields if name != "config"])


def decides_something(config: ConfigDict, key: str) -> bool:
    """Whether another value under `key` gives other settings."""
    before = settings(config)
    prefix, _, name = key.rpartition(".")
    section = dict(sections(config))[f"{prefix}." if prefix else ""]
    with config.ignore_type():
        section[name] = another(section[name], section.get_type(name))
    return settings(config) != before


@pytest.mark.parametrize("key", KEYS)
def test_every_key_decides_something(key: str) -> None:
    assert decides_something(full_config(), key)


@pytest.mark.parametrize("section", SECTIONS)
def test_a_key_that_nothing_reads_is_found(section: str) -> None:
    config = full_config()
    dict(sections(config))[section].invented = 1
    try:
        assert not decides_something(config, f"{section}invented")
    except TypeError as error:  # its room's settings have no such field
        assert "invented" in str(error)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_shipped_config_has_no_other_keys(name: str) -> None:
    config = load_config(str(Path(__file__).parents[1] / "configs" / name))
    assert leaves(config) <= {*KEYS, "data.audio", "simulation"}


def test_every_shipped_config_is_looked_at() -> None:
    folder = Path(__file__).parents[1] / "configs"
    assert {path.name for path in folder.glob("*.py")} == {name.split(":")[0] for name in CONFIGS}


# What the settings hold must be used as well.


def kinds(value: Any) -> Iterator[type]:
    """The classes that settings are made of, however deep."""
    if isinstance(value, tuple):
        for item in value:
            yield from kinds(item)
    elif dataclasses.is_dataclass(value):
        yield type(value)
        for field in dataclasses.fields(value):
            yield from kinds(getattr(value, field.name))


@functools.cache
def attributes_read() -> set[str]:
    """Names that the package reads as `something.name`."""
    paths = Path(astra_jax.__path__[0]).rglob("*.py")
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in paths]
    nodes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    return {node.attr for node in nodes if isinstance(node.ctx, ast.Load)}


def unread(kind: type) -> set[str]:
    """The fields of a class that nothing in the package reads."""
    return {field.name for field in dataclasses.fields(kind)} - attributes_read() - BY_NAME


def test_every_field_of_the_settings_is_read() -> None:
    found = set(kinds(Settings.from_config(freeze(full_config()))))
    assert {kind.__name__ for kind in found} >= {
        *("Settings", "SimulationSpec", "SignalSpec", "DataSpec", "SourceSpec", "AudioSpec"),
        *("StreamConfig", "ClipConfig", "TargetSpec", "MixupConfig", "ModelConfig"),
        *("SourceShape", "VGGishConfig", "LossConfig", "OptimizerConfig", "TrainingConfig"),
        *("InferenceConfig", "SuppressionSpec", "TrackersConfig"),
    }
    assert {kind.__name__: unread(kind) for kind in found if unread(kind)} == {}


def test_a_field_that_nothing_reads_is_found() -> None:
    assert unread(dataclasses.make_dataclass("Invented", ["seed", "invented"])) == {"invented"}
