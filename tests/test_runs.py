"""A whole tiny run: what its folder holds, how it goes on, on all devices, with audio."""

import dataclasses
import importlib
import json
import math
import shutil
import sys
from types import FunctionType, ModuleType

import numpy as np
import pytest
from helpers.components import SHARED
from helpers.linear import Linear
from helpers.runs import ASTRA, LINEAR, FinishedRun, contents, finished_run, lines, steps_in
from helpers.tiny import SECONDS, TRAIN, tiny_config, write_data

from astra_jax import runs


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, compile_once: None) -> FinishedRun:
    return finished_run(tmp_path_factory.getbasetemp() / "finished_run")


# The folder of a run


def test_a_line_an_epoch_tells_losses_rate_and_scores(run):
    epochs = lines(run.workdir / "metrics.jsonl")
    assert [(line["epoch"], line["step"]) for line in epochs] == [(1, 3), (2, 6), (3, 9)]
    losses = [line["loss"] for line in epochs]
    assert losses[2] < losses[0]
    for line in epochs:
        weighted = 100 * line["classification_loss"] + line["displacement_loss"]
        assert line["loss"] == pytest.approx(weighted, rel=1e-4)
        scores = line["validation"]
        assert set(scores) == {"score", "tight", "loose"} and scores["score"] == scores["tight"]
    # One epoch of warm-up, then (1 + cos(pi (e - 1) / 2)) / 2 of the base rate: 1, 1/2 and 0.
    rates = [line["learning_rate"] for line in epochs]
    np.testing.assert_allclose(rates, [1e-2, 5e-3, 0], atol=1e-8)
    seconds = [line["seconds"] for line in epochs]
    assert seconds == sorted(seconds) and seconds[0] > 0


def test_the_summary_tells_how_the_run_went(run):
    written = json.loads((run.workdir / "summary.json").read_text())
    assert written == run.summary
    epochs = lines(run.workdir / "metrics.jsonl")
    best = max(epochs, key=lambda line: (line["validation"]["tight"], line["epoch"]))
    assert written["best_epoch"] == best["epoch"]
    assert written["best_validation_tight"] == best["validation"]["tight"]
    assert (written["steps"], written["epochs"], written["devices"]) == (9, 3, 8)
    assert written["device_kind"] == "cpu" and written["seconds"] > 0
    # Two projections and their norms, codes, encoder, decoder, heads: as the model counts them.
    assert written["parameters"] == 9820


def test_the_checkpoints_are_the_latest_two_and_the_best(run):
    assert steps_in(run.workdir / "checkpoints" / "latest") == [6, 9]
    assert steps_in(run.workdir / "checkpoints" / "best") == [3 * run.summary["best_epoch"]]


def test_nothing_else_lies_in_the_folder(run):
    names = {path.name for path in run.workdir.iterdir()}
    assert names == {
        "config.json",
        "normalization.json",
        "provenance.json",
        "checkpoints",
        "metrics.jsonl",
        "summary.json",
        "log.txt",
    }


def test_the_same_command_again_says_finished_and_changes_nothing(run, caplog):
    before = contents(run.workdir)
    with caplog.at_level("INFO", "astra_jax"):
        assert runs.train(tiny_config(run.root), run.workdir, components=ASTRA) == run.summary
    assert "this run is finished" in caplog.text
    assert contents(run.workdir) == before


def test_a_damaged_summary_is_written_anew(run):
    (run.workdir / "summary.json").write_text('{"epochs": 3}')
    assert runs.train(tiny_config(run.root), run.workdir, components=ASTRA) == run.summary
    assert json.loads((run.workdir / "summary.json").read_text()) == run.summary


def test_data_may_have_moved_and_be_loaded_otherwise(run, tmp_path):
    shutil.copytree(run.root, tmp_path / "moved")
    shutil.copytree(run.workdir, tmp_path / "run")
    config = tiny_config(tmp_path / "moved")
    config.data.workers = 1
    config.inference.batch_size = 8
    config.data.splits.test = "train.txt"  # which training doesn't read
    assert runs.train(config, tmp_path / "run", components=ASTRA) == run.summary


# On all devices, with audio


def test_a_run_on_all_devices_ends_as_on_one(tmp_path):
    config = tiny_config(write_data(tmp_path / "data"))
    on_all = dataclasses.replace(SHARED, make_model=Linear)
    blocks = {}
    for name, components in (("one", LINEAR), ("all", on_all)):
        runs.train(config, tmp_path / name, components=components)
        blocks[name] = runs.evaluate(
            tmp_path / name, "test", tmp_path / name / "test", components=components
        )
    ours, theirs = (lines(tmp_path / name / "metrics.jsonl") for name in blocks)
    # Sums over devices are added in another order.
    for one, on_each in zip(ours, theirs, strict=True):
        assert on_each["loss"] == pytest.approx(one["loss"], rel=1e-5)
        assert on_each["validation"] == pytest.approx(one["validation"], abs=1e-3)
    one, on_each = (of["loose"]["a_mAP"] for of in blocks.values())
    assert on_each == pytest.approx(one, abs=1e-3) and one > 0


def test_a_run_with_audio(tmp_path):
    write_data(tmp_path, (TRAIN,))
    for half in (1, 2):
        power = np.random.default_rng(half).random((16, 10 * SECONDS), np.float32)
        np.save(tmp_path / TRAIN / f"audio{half}.npy", power)
    config = tiny_config(tmp_path)
    with config.ignore_type():
        config.data.sources = config.data.sources[:1]
        config.data.audio = {
            "pattern": "audio{half}.npy",
            "frames_per_second": 10,
            "mels": 16,
            "floor_db": -80.0,
        }
        config.model.audio.update(segment_frames=16, channels=(2,) * 6, hidden=4)
    config.model.encoder_layers = 1
    config.training.update(epochs=1)
    config.optimizer.warmup_epochs = 0
    summary = runs.train(config, tmp_path / "run", components=ASTRA)
    assert summary["steps"] == 3 and summary["best_epoch"] == 1
    (line,) = lines(tmp_path / "run" / "metrics.jsonl")
    assert math.isfinite(line["loss"])


# The package's names


@pytest.mark.parametrize("name", ["train", "evaluate"])
def test_train_and_evaluate_are_functions_whatever_is_imported(name, monkeypatch):
    """Importing a file makes it an attribute of its package, where a function has this name."""
    monkeypatch.delitem(sys.modules, f"astra_jax.runs.{name}", raising=False)
    file = importlib.import_module(f"astra_jax.runs.{name}")
    assert isinstance(file, ModuleType) and isinstance(getattr(runs, name), FunctionType)
    assert getattr(runs, name) is getattr(file, name)
