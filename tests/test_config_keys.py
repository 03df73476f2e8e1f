"""Every key of the config is read by something: a run notes which it reads."""

import ast
import dataclasses
import functools
import sys
from collections.abc import Iterator
from pathlib import Path

import jax.numpy as jnp
import pytest
from flax import linen as nn
from ml_collections import ConfigDict

import astra_jax
from astra_jax import runs
from astra_jax.config import check as checks
from astra_jax.config import load as configuration
from astra_jax.config.defaults import paper
from astra_jax.config.load import load_config
from astra_jax.data.simulation import writer as simulation
from astra_jax.data.simulation.signals import SignalSpec
from astra_jax.data.simulation.writer import SimulationSpec
from astra_jax.data.sources import AudioSpec, DataSpec, SourceSpec
from astra_jax.data.targets import TargetSpec
from astra_jax.model import Predictions
from astra_jax.model.config import AudioConfig, ModelConfig, SourceConfig
from astra_jax.runs import evaluate as evaluation_run
from astra_jax.runs import members
from astra_jax.spotting.suppression import SuppressionSpec
from astra_jax.training import gradients, state
from astra_jax.training.losses import LossConfig

# What one class reads as a whole and refuses unknown keys of, or keys that are a config's choice.
WHOLE = ("simulation", "data.sources", "data.splits")
# They look at every key, whether anything uses it or not.
LOOK_AT_ALL = (checks.__name__, configuration.__name__)
INVENTED = ("invented", "training.invented", "inference.suppression.invented")
CONFIGS = (
    *("ablations.py:m0", "ablations.py:m9,demo", "astra.py", "astra.py:visual"),
    *("astra_small_data.py", "challenge.py", "challenge.py:visual,demo", "commentary.py"),
    *("demo.py", "ensemble.py", "ensemble.py:no_focal,demo"),
)
# getattr(spec, f"{split}_matches").
BY_NAME = {f"{split}_matches" for split in simulation.SPLITS}
# Classes whose fields are filled from the config's keys, or are what those become.
READ_BY_FIELDS = (
    *(AudioConfig, ModelConfig, SourceConfig, LossConfig, SuppressionSpec, TargetSpec),
    *(AudioSpec, DataSpec, SourceSpec, SignalSpec, SimulationSpec),
)


class Flat(nn.Module):
    """Stands in for ASTRA, which takes long to compile: the same scores everywhere."""

    config: ModelConfig

    @nn.compact
    def __call__(self, inputs: dict, train: bool = False) -> Predictions:
        level = self.param("level", nn.initializers.zeros, ())
        clips = inputs["features"][0].shape[0]
        flat = jnp.broadcast_to(level, (clips, self.config.positions, self.config.classes + 1))
        return Predictions(nn.sigmoid(flat), flat, flat)


class Reads:
    """The keys that a run reads, dotted; a mapping's own key doesn't count."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.keys: set[str] = set()
        self._names: dict[int, str] = {}
        self._kept: list[ConfigDict] = []
        original = ConfigDict.__getitem__

        def noting(mapping: ConfigDict, key: str) -> object:
            value = original(mapping, key)
            prefix = self._names.get(id(mapping))
            if prefix is not None and not looks_at_all():
                self.keys.add(f"{prefix}{key}")
            return value

        monkeypatch.setattr(ConfigDict, "__getitem__", noting)

    def follow(self, config: ConfigDict) -> ConfigDict:
        """Notes from now on what is read of `config`."""
        self._kept.append(config)  # or another one could get its id
        self._names |= {id(mapping): name for name, mapping in mappings(config)}
        return config


def looks_at_all() -> bool:
    frame = sys._getframe()
    while frame is not None:
        if frame.f_globals.get("__name__") in LOOK_AT_ALL:
            return True
        frame = frame.f_back
    return False


def mappings(config: ConfigDict, prefix: str = "") -> Iterator[tuple[str, ConfigDict]]:
    yield prefix, config
    for key, value in config.items():
        if isinstance(value, ConfigDict) and prefix + key not in WHOLE:
            yield from mappings(value, f"{prefix}{key}.")


def leaves(config: ConfigDict) -> set[str]:
    nested = [(name, mapping, key) for name, mapping in mappings(config) for key in mapping]
    names = {name for name, _ in mappings(config)}
    return {name + key for name, _, key in nested if f"{name}{key}." not in names}


def with_invented_keys() -> ConfigDict:
    config = paper()
    config.invented = config.training.invented = config.inference.suppression.invented = 1
    return config


def small_config() -> ConfigDict:
    """Simulated matches of two minutes, with audio: everything that a config can switch on."""
    config = with_invented_keys()
    config.simulation = simulation.default_config()
    config.simulation.update(train_matches=1, valid_matches=1, test_matches=1, half_seconds=120)
    with config.ignore_type():
        config.data.update(simulation.data_config())
        config.model.audio.update(segment_frames=16)
    config.clip.update(seconds=16, stride_seconds=8)
    config.optimizer.warmup_epochs = 0
    # The last epoch is validated and ends the run whatever the keys of that say.
    config.training.update(epochs=2)
    return config


@pytest.fixture(scope="module")
def read_keys(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """What training and evaluation read."""
    workdir = tmp_path_factory.mktemp("reads")
    with pytest.MonkeyPatch.context() as monkeypatch:
        for module in (state, gradients, runs, evaluation_run):
            monkeypatch.setattr(module, "ASTRA", Flat)
        for module in (checks, configuration):
            monkeypatch.setattr(module, "paper", with_invented_keys)
        reads = Reads(monkeypatch)
        original = configuration.from_json
        for module in (runs, members):
            monkeypatch.setattr(module, "from_json", lambda path: reads.follow(original(path)))
        runs.train(reads.follow(small_config()), workdir)
        runs.evaluate(workdir, "test", workdir / "out")
    return reads.keys


def test_every_key_is_read_and_an_invented_one_is_found(read_keys: set[str]) -> None:
    assert leaves(small_config()) - read_keys == set(INVENTED)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_has_no_key_that_nothing_reads(name: str, read_keys: set[str]) -> None:
    config = load_config(str(Path(__file__).parents[1] / "configs" / name))
    assert leaves(config) <= read_keys | {"data.audio"}


def test_every_config_is_looked_at() -> None:
    folder = Path(__file__).parents[1] / "configs"
    assert {path.name for path in folder.glob("*.py")} == {name.split(":")[0] for name in CONFIGS}


@functools.cache
def attributes_read() -> set[str]:
    """Names that the package reads as `something.name`."""
    paths = Path(astra_jax.__path__[0]).rglob("*.py")
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in paths]
    nodes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    return {node.attr for node in nodes if isinstance(node.ctx, ast.Load)}


@pytest.mark.parametrize("kind", READ_BY_FIELDS, ids=lambda kind: kind.__name__)
def test_every_setting_that_a_class_takes_is_read(kind: type) -> None:
    """A class that takes keys as a whole would hide one that nothing uses."""
    fields = {field.name for field in dataclasses.fields(kind)}
    assert fields and fields - attributes_read() <= BY_NAME
