"""Table 2's models, the ensemble's members and protocol P2, as configs."""

import functools
from pathlib import Path

import pytest
from helpers.components import one_device
from ml_collections import ConfigDict

from astra_jax.config.defaults import paper
from astra_jax.config.load import load_config
from astra_jax.config.recipes import parse_variant
from astra_jax.config.saved import differences, flatten
from astra_jax.devices import replicated
from astra_jax.errors import UserError
from astra_jax.model import ASTRA, ModelConfig, abstract_params, count_parameters
from astra_jax.runs.folder import RunFolder
from astra_jax.runs.prepare import matches_of
from astra_jax.runs.settings import Settings, resolve

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


def load(name: str) -> ConfigDict:
    return load_config(str(CONFIGS / name))


def settings_of(config: ConfigDict) -> Settings:
    config.data.root = "anywhere"
    return Settings.from_config(resolve(config, RunFolder(Path())))


@functools.cache
def size_of(model: ModelConfig) -> int:
    return count_parameters(abstract_params(ASTRA(model), replicated(one_device())))


def changes(config: ConfigDict, other: ConfigDict) -> dict[str, object]:
    """Keys of `config` that differ from `other`, with its values."""
    values = flatten(config)
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
    settings = settings_of(config)
    assert len(matches_of(settings, "train")) == 500
    assert len(matches_of(settings, "challenge")) == 50
    assert config.data.splits.valid == "" and "test" not in config.data.splits


@pytest.mark.parametrize(("name", "parameters"), PARAMETERS.items())
def test_a_model_of_table_2_has_its_size(name, parameters):
    assert size_of(settings_of(load(f"ablations.py:{name}")).model) == parameters


@pytest.mark.parametrize("argument", ["m10", "demo,m4", "m1,demo,demo", "m1,dem", ",demo"])
def test_another_name_is_one_line_that_lists_the_models(argument):
    with pytest.raises(UserError, match=r"^there are m0, m1, m2, and NAME,demo") as caught:
        parse_variant(argument, ("m0", "m1", "m2"), "m1")
    assert "\n" not in str(caught.value)
