"""The shipped configs at the demo's width: what each asks of the program trains and evaluates."""

import functools
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from helpers.components import SHARED, on_one_device, one_device
from ml_collections import ConfigDict

from astra_jax import runs
from astra_jax.config.clock import clock_source
from astra_jax.config.load import load_config
from astra_jax.config.recipes import small_data
from astra_jax.config.saved import flatten
from astra_jax.config.simulated import simulated_data, simulated_matches
from astra_jax.data.simulation.writer import SimulationSpec, write_matches
from astra_jax.devices import replicated
from astra_jax.evaluation.metrics import METRICS
from astra_jax.model import ASTRA, ModelConfig, Predictions, abstract_params
from astra_jax.runs.folder import RunFolder
from astra_jax.runs.prepare import prepare
from astra_jax.runs.settings import Settings, resolve
from astra_jax.training.losses import losses

CONFIGS = Path(__file__).parents[1] / "configs"
COMPONENTS = on_one_device(SHARED)

# demo.py is trained in test_wheel.py; astra.py is m9.
SHIPPED = (
    *(f"ablations.py:m{number},demo" for number in range(10)),
    *("ensemble.py:no_focal,demo", "ensemble.py:no_uncertainty,demo", "challenge.py:demo"),
    "astra_small_data.py",
)
# Compiling is what takes time: of the others each part is one of these's, or of the recipe's for
# little data (test_small_data.py), as a test shows.
TRAINED = (*(f"ablations.py:m{number},demo" for number in (0, 6, 9)), "challenge.py:demo")
# What decides which clips are drawn and mixed, how many and how large, and not what is computed.
OF_NO_PART = (
    *("mixup.kind", "mixup.alpha", "training.epochs"),
    *(f"model.{size}" for size in ("dim", "heads", "feed_forward", "encoder_layers")),
    "model.decoder_layers",
)
# What `evaluate` is asked for; simulated matches have no challenge split of their own.
SPLIT = {"challenge.py:demo": "challenge"}


@pytest.fixture(scope="module")
def matches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few simulated matches of two minutes a half."""
    root = tmp_path_factory.mktemp("matches") / "simulated"
    write_matches(root, SimulationSpec.from_config(small_simulation().to_dict()))
    return root


def small_simulation() -> ConfigDict:
    config = simulated_matches()
    config.update(train_matches=1, valid_matches=1, test_matches=1, half_seconds=120)
    return config


def small(name: str, root: Path) -> ConfigDict:
    """A shipped config on these matches, as shallow as its parts allow."""
    config = load_config(str(CONFIGS / name))
    if config.simulation is None:
        with config.ignore_type():
            simulated = simulated_data()
            config.data.update(splits=simulated.splits)
            config.data.sources = (*simulated.sources, clock_source())
        config.clip.update(seconds=24, stride_seconds=12)  # whole rows of the clock
    config.simulation = small_simulation()
    config.data.root = str(root)
    # Of m0 and m1, which differ in it, the encoder has two layers.
    config.model.update(encoder_layers=2 if ":m0" in name or ":m1" in name else 1, decoder_layers=1)
    # As the challenge's model does, so that it shares a program with another.
    config.data.splits.update(train="train.txt+valid.txt", valid="")
    config.optimizer.warmup_epochs = 0
    config.training.update(epochs=1, batch_size=8)
    return config


@pytest.mark.parametrize("name", TRAINED)
def test_a_config_trains_and_evaluates_at_the_demo_s_width(name, matches, tmp_path):
    workdir, config = tmp_path / "run", small(name, matches)
    summary = runs.train(config, workdir, components=COMPONENTS)
    assert summary["steps"] == 2  # of the 20 pairs of two matches
    split, out = SPLIT.get(name, "test"), tmp_path / "out"
    blocks = runs.evaluate(workdir, split, out, components=COMPONENTS)
    assert all(0 <= blocks[metric]["a_mAP"] <= 1 for metric in METRICS)


@pytest.mark.parametrize("name", [name for name in SHIPPED if name not in TRAINED])
def test_what_a_config_asks_of_the_program_is_in_one_that_is_trained(name):
    trained = [flatten(load_config(str(CONFIGS / other))) for other in TRAINED]
    trained.append(flatten(small_data()))
    for key, value in flatten(load_config(str(CONFIGS / name))).items():
        if key not in OF_NO_PART:
            assert any(key in of and of[key] == value for of in trained), key


@functools.cache
def shapes_predicted(model: ModelConfig, batch: Any, train: bool) -> tuple[Any, ...]:
    """Of what a model says of a batch, leaves and tree of shapes; nothing is compiled."""
    params = abstract_params(ASTRA(model), replicated(one_device()))
    keys = {name: jax.random.key(0) for name in ("dropout", "augment")}

    def apply(params: Any, batch: Any) -> tuple[Any, ...]:
        out = ASTRA(model).apply({"params": params}, batch, train, rngs=keys)
        return out.probabilities, out.displacement_mean, out.displacement_log_variance

    return jax.eval_shape(apply, params, jax.tree.unflatten(*reversed(batch)))


@pytest.mark.parametrize("name", SHIPPED)
def test_a_config_s_clips_fit_its_model_and_its_loss(name, matches, tmp_path):
    folder = RunFolder(tmp_path)
    settings = Settings.from_config(resolve(small(name, matches), folder))
    stream = prepare(settings, folder, ASTRA(settings.model)).stream
    batch = next(stream.batches(0, 1))
    leaves, tree = jax.tree.flatten(batch)
    shapes = tuple(jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves), tree
    trained, evaluated = (shapes_predicted(settings.model, shapes, on) for on in (True, False))
    assert trained == evaluated
    drawn = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.5, leaf.dtype), trained)
    targets = (batch[key] for key in ("class_targets", "displacements", "displacement_mask"))
    assert 0 < losses(Predictions(*drawn), *targets, settings.loss).total < np.inf
