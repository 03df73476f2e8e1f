"""What a training refuses: another run's folder, a value that can't be used."""

import dataclasses
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from helpers.noisy import Noisy
from helpers.runs import LINEAR, contents, refused
from helpers.tiny import tiny_config, write_data

from astra_jax import runs
from astra_jax.cli import main
from astra_jax.runs.folder import RunFolder

NOISY = dataclasses.replace(LINEAR, make_model=Noisy)  # which has a model.dim


@dataclass(frozen=True)
class Run:
    """A finished run of three epochs."""

    root: Path
    workdir: Path


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def run(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    workdir = tmp_path_factory.mktemp("run") / "run"
    runs.train(tiny_config(root), workdir, components=NOISY)
    return Run(root, workdir)


def test_another_config_in_the_folder_of_a_run_names_the_keys(run):
    config = tiny_config(run.root)
    config.optimizer.learning_rate = 2e-3
    config.data.unknown_labels = "skip"
    before = contents(run.workdir)
    with refused("config.json", "data.unknown_labels, optimizer.learning_rate", "--workdir"):
        runs.train(config, run.workdir, components=NOISY)
    assert contents(run.workdir) == before


def test_a_checkpoint_of_another_model_is_named(run, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(run.workdir, workdir)
    config = json.loads((workdir / "config.json").read_text())
    config["model"]["dim"] = 32
    (workdir / "config.json").write_text(json.dumps(config))
    with refused("checkpoints/best", "another model", "--workdir"):
        runs.evaluate(workdir, "test", tmp_path / "out", components=NOISY)
    assert not (tmp_path / "out").exists()
    # One that is to go on: a finished run's state is not read.
    folder = RunFolder(workdir)
    progress = folder.latest_checkpoints / str(folder.latest_step()) / "progress" / "metadata"
    progress.write_text(progress.read_text().replace('"finished": true', '"finished": false'))
    other = tiny_config(run.root)
    other.model.dim = 32
    with refused("checkpoints/latest", "another model", "--workdir"):
        runs.train(other, workdir, components=NOISY)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"training.batch_size": 12}, ("training.batch_size", "12", "multiple of 8")),
        ({"training.batch_size": 0}, ("training.batch_size",)),
        ({"optimizer.warmup_epochs": 3}, ("optimizer.warmup_epochs", "training.epochs")),
        ({"optimizer.schedule": "daily"}, ("optimizer.schedule", "daily")),
        ({"inference.stride_seconds": 21.0}, ("inference.stride_seconds", "clip.seconds")),
        ({"clip.seconds": 20.2, "inference.stride_seconds": 20.2}, ("must be at most 20.0,",)),
        ({"inference.suppression.windows_seconds": (5.0, 6.0)}, ("2 windows", "17 classes")),
        ({"inference.suppression.decay": "cubic"}, ("inference.suppression.decay",)),
        ({"data.splits.train": ""}, ("data.splits.train",)),
        ({"data.splits.valid": "none.txt"}, ("none.txt", "data.splits")),
        ({"model.heads": 3}, ("dim 16", "heads 3")),
        ({"model.codes": "none"}, ("model.codes",)),
        ({"model.dtype": "float31"}, ("model.dtype", "float31")),
    ],
)
def test_a_value_that_cannot_be_used_is_named_before_anything_is_written(
    root, tmp_path, change, words
):
    config = tiny_config(root)
    config.update_from_flattened_dict(change)
    with refused(*words):
        runs.train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_file_is_no_folder_for_a_run(root, tmp_path):
    (tmp_path / "run").write_text("")
    with refused(str(tmp_path / "run"), "--workdir"):
        runs.train(tiny_config(root), tmp_path / "run")


def test_an_evaluation_into_a_file_is_refused_before_it_predicts(tmp_path):
    """Not after the hours that a split takes, by what the disk says then."""
    (tmp_path / "out").touch()
    with refused(f"{tmp_path}/out: is a file", "--out"):
        runs.evaluate(tmp_path / "no run yet", "test", tmp_path / "out")


@pytest.mark.parametrize("below_a_file", [True, False])
def test_an_evaluation_where_nothing_can_be_written_is_refused_before_it_predicts(
    tmp_path, monkeypatch, below_a_file
):
    out = tmp_path / "place" / "out"
    if below_a_file:
        out.parent.touch()
    else:
        out.parent.mkdir()
        # Root, as which tests may run, can write into a folder without rights.
        monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != out.parent)
    with refused(f"{out}: cannot be written", "--out"):
        runs.evaluate(tmp_path / "no run yet", "test", out)


def test_periods_in_another_order_are_the_same_run(run):
    config = tiny_config(run.root)
    config.data.periods = (2, 1)
    before = contents(run.workdir)
    runs.train(config, run.workdir, components=NOISY)
    assert contents(run.workdir) == before


@pytest.mark.parametrize("name", ["", ".", "a\0b", "/labels.json", "../labels.json", "x" * 256])
def test_what_is_no_name_of_a_label_file_is_refused(root, tmp_path, name, capsys):
    config = tiny_config(root)
    config.data.labels_file = name
    with refused("data.labels_file", "Labels-v2.json"):
        runs.train(config, tmp_path / "run", components=NOISY)
    score = ["score", "--labels", str(root), "--predictions", str(root), "--labels-file", name]
    assert main(score) == 2
    assert capsys.readouterr().err.startswith("error: --labels-file: ")
