"""The config that a run keeps: it comes back as it was, and a damaged one is one line."""

import json
from pathlib import Path

import pytest

from astra_jax.config.defaults import paper
from astra_jax.config.load import load_config, override
from astra_jax.config.saved import (
    check_left_out,
    differences,
    flatten,
    from_json,
    may_differ,
    to_json,
)
from astra_jax.errors import UserError

CONFIGS = Path(__file__).parents[1] / "configs"


@pytest.mark.parametrize(
    "name", ["astra.py", "astra.py:visual", "astra_small_data.py", "demo.py", "commentary.py"]
)
def test_a_run_keeps_its_config_as_it_was(name, tmp_path):
    config = load_config(str(CONFIGS / name))
    (tmp_path / "config.json").write_text(to_json(config), encoding="utf-8")
    assert differences(config, from_json(tmp_path / "config.json")) == []


def test_a_kept_config_takes_overrides(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(to_json(paper()), encoding="utf-8")
    moved = override(from_json(path), ["--config.data.root=/elsewhere"])
    assert differences(paper(), moved) == ["data.root"]


def test_a_key_that_is_no_more_is_left_out_of_a_kept_config(tmp_path):
    path = tmp_path / "config.json"
    loss = {"focal": False, "class_weights": None, "displacement_normalization": "positions"}
    kept = {"loss": loss, "optimizer": {"decoupled_decay": False}}
    path.write_text(json.dumps(kept), encoding="utf-8")
    assert differences(from_json(path), paper()) == ["loss.focal"]


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("loss", "class_weights", [1.0, 2.0]),
        ("loss", "displacement_normalization", "targets"),
        ("optimizer", "decoupled_decay", True),
    ],
)
def test_a_run_that_used_what_is_no_more_is_read_but_not_trained_on(tmp_path, section, key, value):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({section: {key: value}}), encoding="utf-8")
    with pytest.raises(UserError, match=f"{section}.{key} is .*, which there is no more"):
        check_left_out(path)
    assert differences(from_json(path), paper()) == []


def test_keys_that_a_kept_config_lacks_have_their_defaults(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{"seed": 7, "training": {"epochs": 3}}', encoding="utf-8")
    config = from_json(path)
    assert (config.seed, config.training.epochs, config.training.batch_size) == (7, 3, 8)
    assert (config.data.periods, config.evaluation.frame_rate) == ((1, 2), 2)


def test_what_decides_the_data_or_the_best_epoch_may_not_differ_in_a_continuation():
    assert may_differ("data.root") and may_differ("data.splits.test")
    for key in ("data.periods", "data.splits.valid", "evaluation.frame_rate"):
        assert key in flatten(paper()) and not may_differ(key)


@pytest.mark.parametrize("content", ["{", "[1]", '{"training": 3}', "[" * 100_000, "9" * 5000])
def test_a_broken_kept_config_is_one_line(content, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=r"config\.json"):
        from_json(path)
