"""Table 2's models, the ensemble's members and protocol P2, as configs."""

from pathlib import Path

import pytest
from ml_collections import ConfigDict

from astra_jax import runs
from astra_jax.config.defaults import paper
from astra_jax.config.load import load_config
from astra_jax.config.recipes import parse
from astra_jax.config.saved import differences, flattened
from astra_jax.data import clock
from astra_jax.data.simulation import writer as simulation
from astra_jax.data.simulation.writer import SimulationSpec, write_matches
from astra_jax.devices import make_mesh, replicated
from astra_jax.errors import UserError
from astra_jax.evaluation.metrics import METRICS
from astra_jax.model import ModelConfig
from astra_jax.model.initial_values import abstract_params, parameter_count
from astra_jax.runs.prepare import matches_of

CONFIGS = Path(__file__).parents[1] / "configs"

AUDIO = paper().data.audio.to_dict()

# What each model of Table 2 adds to another one, and nothing else.
TABLE_2 = {
    "m1": ("m0", {"model.hierarchical": True}),
    "m2": (
        "m1",
        {"targets.class_radius_seconds": 2.0, "targets.displacement_radius_seconds": 3.0},
    ),
    "m3": ("m2", {"mixup.kind": "plain", "mixup.alpha": 0.6}),  # beta is 0.6 in all
    "m4": ("m2", {"mixup.kind": "balanced"}),
    "m5": ("m4", {"model.temporal_dropout": 0.5, "model.temporal_switch": 0.3}),
    "m6": ("m5", {"clip.positions_per_second": 1.0}),
    "m7": ("m5", {"loss.focal": True}),
    "m8": ("m7", {"model.uncertainty": True}),
    "m9": ("m8", {f"data.audio.{key}": value for key, value in AUDIO.items()}),
}

DIM, CLASSES = 512, 18
LINEAR, OUTPUT = DIM * DIM + DIM, DIM * CLASSES + CLASSES
VISUAL = 44_299_574
PARAMETERS = {
    **dict.fromkeys(("m0", "m1", "m2", "m3", "m4"), VISUAL - LINEAR - OUTPUT - 8576),
    **dict.fromkeys(("m5", "m7"), VISUAL - LINEAR - OUTPUT),
    "m6": VISUAL - LINEAR - OUTPUT - 50 * DIM,
    "m8": VISUAL,
    "m9": 168_372_918,
}

# demo.py is trained in test_wheel.py, commentary.py's recipe in test_small_data.py; astra.py is m9.
TRAINED = (
    *(f"ablations.py:m{number},demo" for number in range(10)),
    *("ensemble.py:no_focal,demo", "ensemble.py:no_uncertainty,demo", "challenge.py:demo"),
    "astra_small_data.py",
)
# What `evaluate` is asked for; simulated matches have no challenge split of their own.
SPLIT = {"challenge.py:demo": "challenge"}


def load(name: str) -> ConfigDict:
    return load_config(str(CONFIGS / name))


def changes(config: ConfigDict, other: ConfigDict) -> dict[str, object]:
    """Keys of `config` that differ from `other`, with its values."""
    values = flattened(config)
    return {key: values[key] for key in differences(config, other) if key in values}


@pytest.mark.parametrize("name", TABLE_2)
def test_a_model_of_table_2_differs_from_its_predecessor_in_its_feature_alone(name):
    before, feature = TABLE_2[name]
    assert changes(load(f"ablations.py:{name}"), load(f"ablations.py:{before}")) == feature


@pytest.mark.parametrize("name", [name for name in TABLE_2 if name != "m9"])
def test_at_the_demo_s_size_the_feature_is_the_same(name):
    before, feature = TABLE_2[name]
    small = load(f"ablations.py:{name},demo"), load(f"ablations.py:{before},demo")
    assert changes(*small) == feature


def test_the_first_model_of_table_2_has_none_of_the_features():
    config = load("ablations.py:m0")
    assert changes(config, paper()) == {
        "data.audio": None,
        "loss.focal": False,
        "mixup.kind": "none",
        "model.hierarchical": False,
        "model.temporal_dropout": 0.0,
        "model.temporal_switch": 0.0,
        "model.uncertainty": False,
        "targets.class_radius_seconds": 3.0,
        "targets.displacement_radius_seconds": 6.0,
    }


def test_the_last_model_of_table_2_is_astra():
    assert differences(load("ablations.py:m9"), load("astra.py")) == []
    assert differences(load("ablations.py:m8"), load("astra.py:visual")) == []


@pytest.mark.parametrize(
    ("name", "without"),
    [
        ("full", {}),
        ("visual", {"data.audio": None}),
        ("no_focal", {"loss.focal": False}),
        ("no_uncertainty", {"model.uncertainty": False}),
    ],
)
@pytest.mark.parametrize("file", ["ensemble.py", "challenge.py"])
def test_a_member_of_the_ensemble_lacks_one_part(file, name, without):
    assert changes(load(f"{file}:{name}"), load(file)) == without


def test_the_challenge_s_models_train_on_all_that_is_labelled_and_validate_nothing():
    config = load("challenge.py")
    assert (config.training.epochs, config.optimizer.warmup_epochs) == (83, 5)
    assert len(matches_of(config, "train")) == 500
    assert len(matches_of(config, "challenge")) == 50
    assert config.data.splits.valid == "" and "test" not in config.data.splits


@pytest.mark.parametrize(("name", "parameters"), PARAMETERS.items())
def test_a_model_of_table_2_has_its_size(name, parameters):
    model = ModelConfig.from_config(load(f"ablations.py:{name}"))
    assert parameter_count(abstract_params(model, replicated(make_mesh()))) == parameters


@pytest.mark.parametrize("argument", ["m10", "demo,m4", "m1,demo,demo", "m1,dem", ",demo"])
def test_another_name_is_one_line_that_lists_the_models(argument):
    with pytest.raises(UserError, match=r"^there are m0, m1, m2, and NAME,demo") as caught:
        parse(argument, ("m0", "m1", "m2"), "m1")
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def matches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few simulated matches of two minutes a half."""
    root = tmp_path_factory.mktemp("matches") / "simulated"
    write_matches(root, SimulationSpec.from_config(small_simulation()))
    return root


def small_simulation() -> ConfigDict:
    config = simulation.default_config()
    config.update(train_matches=1, valid_matches=1, test_matches=1, half_seconds=120)
    return config


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.usefixtures("programs_once", "module_on_one_device")
def test_a_config_trains_and_evaluates_at_the_demo_s_width(name, matches, tmp_path):
    config = load(name)
    if config.simulation is None:
        with config.ignore_type():
            simulated = simulation.data_config()
            config.data.update(splits=simulated.splits)
            config.data.sources = (*simulated.sources, clock.source())
        config.clip.update(seconds=24, stride_seconds=12)  # whole rows of the clock
    config.simulation = small_simulation()
    config.data.root = str(matches)
    # Compiling is what takes time. Of m0 and m1, which differ in it, the encoder has two layers.
    config.model.update(encoder_layers=2 if ":m0" in name or ":m1" in name else 1, decoder_layers=1)
    # As the challenge's model does, so that it shares a program with another.
    config.data.splits.update(train="train.txt+valid.txt", valid="")
    config.optimizer.warmup_epochs = 0
    config.training.update(epochs=1, batch_size=8)
    assert runs.train(config, tmp_path / "run")["steps"] == 2  # of the 20 pairs of two matches
    blocks = runs.evaluate(tmp_path / "run", SPLIT.get(name, "test"), tmp_path / "out")
    assert all(0 <= blocks[metric]["a_mAP"] <= 1 for metric in METRICS)
