"""A whole tiny run: training, its folder, evaluation, what stops it and what it refuses."""

import json
import math
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers.tiny import SECONDS, TRAIN, VALID, tiny_config, write_data

from astra_jax import runs
from astra_jax.cli.main import main
from astra_jax.config.classes import CLASSES
from astra_jax.errors import UserError
from astra_jax.evaluation.metrics import METRICS
from astra_jax.files import read_mapping
from astra_jax.training.checkpoints import Checkpoints
from astra_jax.training.journal import Journal

pytestmark = pytest.mark.usefixtures("programs_once")


@dataclass(frozen=True)
class Run:
    """A finished run of three epochs and its evaluation."""

    root: Path
    workdir: Path
    out: Path
    summary: dict
    blocks: dict


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, programs_once: None) -> Run:
    folder = tmp_path_factory.mktemp("run")
    root, workdir, out = folder / "data", folder / "runs" / "tiny", folder / "out"
    write_data(root)
    summary = runs.train(tiny_config(root), workdir)
    return Run(root, workdir, out, summary, runs.evaluate(workdir, "test", out))


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def steps_in(folder: Path) -> list[int]:
    return sorted(int(path.name) for path in folder.iterdir())


def refused(*words: str) -> "pytest.RaisesExc":
    def right(error: UserError) -> bool:
        return "\n" not in str(error) and all(word in str(error) for word in words)

    return pytest.raises(UserError, check=right)


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
    }


def test_the_same_command_again_says_finished_and_changes_nothing(run, caplog):
    before = contents(run.workdir)
    with caplog.at_level("INFO", "astra_jax"):
        assert runs.train(tiny_config(run.root), run.workdir) == run.summary
    assert "this run is finished" in caplog.text
    assert contents(run.workdir) == before


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff", b"[" * 100_000])
def test_a_damaged_summary_is_none(tmp_path, content):
    path = tmp_path / "summary.json"
    assert read_mapping(path) is None
    path.write_bytes(content)
    assert read_mapping(path) is None


def test_a_damaged_summary_is_written_anew(run):
    (run.workdir / "summary.json").write_text('{"epochs": 3}')
    assert runs.train(tiny_config(run.root), run.workdir) == run.summary
    assert json.loads((run.workdir / "summary.json").read_text()) == run.summary


# Evaluation


def test_an_evaluation_scores_by_every_metric(run):
    assert json.loads((run.out / "metrics.json").read_text()) == run.blocks
    assert list(run.blocks) == list(METRICS) == ["tight", "loose", *(f"at{n}" for n in range(1, 6))]
    for block in run.blocks.values():
        assert 0 <= block["a_mAP"] <= 1 and set(block["a_mAP_per_class"]) == set(CLASSES)
        assert {"a_mAP_visible", "a_mAP_unshown", "a_mAP_per_class_visible"} < set(block)
    assert run.blocks["loose"]["a_mAP"] > 0


def test_the_best_checkpoint_gets_the_score_it_had_in_training(run):
    assert run.blocks["tight"]["a_mAP"] == pytest.approx(
        run.summary["best_validation_tight"], abs=1e-9
    )


def test_results_and_zip_hold_every_spot_with_its_sigma(run):
    name = f"{VALID}/results_spotting.json"
    text = (run.out / "results" / name).read_bytes()
    with zipfile.ZipFile(run.out / "results.zip") as archive:
        assert archive.namelist() == [name] and archive.read(name) == text
    spots = json.loads(text)["predictions"]
    assert {spot["half"] for spot in spots} == {"1", "2"}
    assert all(0 < float(spot["sigma_seconds"]) < math.inf for spot in spots)
    assert all(0 <= int(spot["position"]) < 120_000 for spot in spots)


@pytest.mark.parametrize("results", ["results.zip", "results"])
def test_astra_score_gives_the_numbers_of_the_evaluation(run, tmp_path, capsys, results):
    scores = tmp_path / "scores.json"
    arguments = ["--labels", str(run.root), "--predictions", str(run.out / results)]
    arguments += ["--matches", str(run.root / "valid.txt"), "--json", str(scores)]
    assert main(["score", *arguments, "--metric", *METRICS]) == 0
    assert json.loads(scores.read_text()) == run.blocks
    assert f"{100 * run.blocks['tight']['a_mAP']:.2f}" in capsys.readouterr().out


def test_provenance_tells_of_the_start_and_of_what_was_evaluated(run):
    (start,) = json.loads((run.workdir / "provenance.json").read_text())["starts"]
    assert start["step"] == 0 and start["data"].startswith("sha256:")
    evaluation = json.loads((run.out / "provenance.json").read_text())
    assert (evaluation["workdir"], evaluation["split"]) == (str(run.workdir), "test")
    assert evaluation["step"] == 3 * run.summary["best_epoch"]


def test_an_evaluation_without_memory_names_the_key(run, tmp_path, monkeypatch):
    def spots(*args: object) -> None:
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")

    monkeypatch.setattr(runs.Predictor, "spots", spots)
    with refused("out of memory", "inference.batch_size"):
        runs.evaluate(run.workdir, "test", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_split_without_labels_gets_predictions_and_no_scores(run, tmp_path, caplog):
    match = "league/season/E - F"
    shutil.copytree(run.root / VALID, tmp_path / "data" / match)
    (tmp_path / "data" / match / "Labels-v2.json").unlink()
    (tmp_path / "list.txt").write_text(f"{match}\n")
    out = tmp_path / "out"
    out.mkdir()
    (out / "metrics.json").write_text("those of another split")
    overrides = [f"--config.data.root={tmp_path / 'data'}"]
    with caplog.at_level("INFO", "astra_jax"):
        assert runs.evaluate(run.workdir, str(tmp_path / "list.txt"), out, overrides) is None
    assert "no labels" in caplog.text
    assert (out / "results" / match / "results_spotting.json").is_file()
    names = {path.name for path in out.iterdir()}
    assert names == {"results", "results.zip", "provenance.json"}


def test_a_file_of_matches_may_begin_like_a_split(run, tmp_path):
    """`valid.txt` lies under data.root: its dot is no step from `valid` to a key of it."""
    blocks = runs.evaluate(run.workdir, "valid.txt", tmp_path / "out")
    assert blocks["tight"]["a_mAP"] == run.blocks["tight"]["a_mAP"]


def test_an_evaluation_leaves_the_folder_of_the_run_as_it_is(run, tmp_path):
    """A training may be at work there, its unfinished checkpoints among the others."""
    workdir = tmp_path / "run"
    shutil.copytree(run.workdir, workdir)
    unfinished = workdir / "checkpoints" / "latest" / "12.orbax-checkpoint-tmp"
    unfinished.mkdir()
    (unfinished / "part").write_text("being written")
    before = contents(workdir)
    runs.evaluate(workdir, "test", tmp_path / "out")
    assert contents(workdir) == before


def test_evaluating_before_the_first_validation_says_so(run, tmp_path):
    shutil.copy(run.workdir / "config.json", tmp_path)
    with refused("best", "no checkpoint yet"):
        runs.evaluate(tmp_path, "test", tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"config.json"}


# Selection and stopping


def scored_run(monkeypatch, run: Run, workdir: Path, scores: list[float], **training: int) -> dict:
    """A run of at most six epochs whose validations give these scores, in order."""
    given = iter(scores)
    validate = lambda params: dict.fromkeys(("score", "tight", "loose"), next(given))  # noqa: E731
    monkeypatch.setattr(runs, "_validator", lambda *args: validate)
    config = tiny_config(run.root)
    config.training.update(epochs=6, **training)
    return runs.train(config, workdir)


@pytest.mark.usefixtures("one_device")
def test_training_stops_when_patience_ends(run, tmp_path, monkeypatch):
    scores = [0.3, 0.2, 0.1]
    summary = scored_run(monkeypatch, run, tmp_path, scores, patience_epochs=2)
    assert (summary["epochs"], summary["best_epoch"]) == (3, 1)
    assert summary["best_validation_tight"] == 0.3
    assert steps_in(tmp_path / "checkpoints" / "best") == [3]
    # Stopped is finished: no step is taken when it is called again.
    assert scored_run(monkeypatch, run, tmp_path, [], patience_epochs=2) == summary


@pytest.mark.usefixtures("one_device")
def test_an_equal_score_counts_as_better(run, tmp_path, monkeypatch):
    scores = [0.3, 0.3, 0.1, 0.2]
    summary = scored_run(monkeypatch, run, tmp_path, scores, patience_epochs=2)
    assert (summary["epochs"], summary["best_epoch"]) == (4, 2)
    assert steps_in(tmp_path / "checkpoints" / "best") == [6]


@pytest.mark.usefixtures("one_device")
def test_validation_is_every_so_many_epochs_and_at_the_end(run, tmp_path, monkeypatch):
    summary = scored_run(monkeypatch, run, tmp_path, [0.2, 0.1], validate_every_epochs=4)
    scores = [line["validation"].get("score") for line in lines(tmp_path / "metrics.jsonl")]
    assert scores == [None, None, None, 0.2, None, 0.1] and summary["best_epoch"] == 4


@pytest.mark.usefixtures("one_device")
def test_without_a_validation_split_the_last_epoch_is_kept(run, tmp_path):
    config = tiny_config(run.root)
    config.data.splits.valid = ""
    summary = runs.train(config, tmp_path)
    assert (summary["best_epoch"], summary["best_validation_tight"]) == (3, None)
    assert steps_in(tmp_path / "checkpoints" / "best") == [9]
    assert all(line["validation"] == {} for line in lines(tmp_path / "metrics.jsonl"))
    assert runs.evaluate(tmp_path, "test", tmp_path / "out")["loose"]["a_mAP"] >= 0


def test_a_best_checkpoint_of_steps_that_are_taken_again_is_replaced(tmp_path):
    """Orbax takes no step below its newest: a run that goes on from step 3 would keep step 6."""
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save_best(6, {"w": np.zeros(2, np.float32)})
    checkpoints.close()
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save_best(5, {"w": np.ones(2, np.float32)})
    checkpoints.close()
    again = Checkpoints(tmp_path, read_only=True)
    step, params = again.restore_best({"w": np.zeros(2, np.float32)})
    again.close()
    assert step == 5 and params["w"].tolist() == [1, 1]


@pytest.mark.parametrize(
    "damage", [b"\xff\xfe\n", b"", b'{"step": "one"}\n', b"[" * 100_000 + b"\n", b'{"step": NaN}\n']
)
def test_damaged_lines_of_metrics_are_left_out(tmp_path, damage):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 3}\n' + damage + b'{"step": 6}\n')
    Journal(tiny_config(tmp_path), tmp_path, 3).cut(6)
    assert path.read_text() == '{"step": 3}\n{"step": 6}\n'


@pytest.mark.usefixtures("one_device")
def test_features_too_large_for_a_finite_loss_stop_the_run(tmp_path):
    write_data(tmp_path / "data")
    path = tmp_path / "data" / TRAIN / "1_wide.npy"
    np.save(path, np.load(path) * np.float32(1e30))
    config = tiny_config(tmp_path / "data")
    with config.ignore_type():
        config.data.sources = tuple({**s, "normalize": False} for s in config.data.sources)
    with refused("3 steps in a row", "optimizer.learning_rate", f"{TRAIN} half 1 at "):
        runs.train(config, tmp_path / "run")
    assert steps_in(tmp_path / "run" / "checkpoints" / "latest") == []
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


# With audio


@pytest.mark.usefixtures("one_device")
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
    summary = runs.train(config, tmp_path / "run")
    assert summary["steps"] == 3 and summary["best_epoch"] == 1
    (line,) = lines(tmp_path / "run" / "metrics.jsonl")
    assert math.isfinite(line["loss"])


# What is refused


def test_another_config_in_the_folder_of_a_run_names_the_keys(run):
    config = tiny_config(run.root)
    config.optimizer.learning_rate = 2e-3
    config.data.unknown_labels = "skip"
    before = contents(run.workdir)
    with refused("config.json", "data.unknown_labels, optimizer.learning_rate", "--workdir"):
        runs.train(config, run.workdir)
    assert contents(run.workdir) == before


def test_data_may_have_moved_and_be_loaded_otherwise(run, tmp_path):
    shutil.copytree(run.root, tmp_path / "moved")
    config = tiny_config(tmp_path / "moved")
    config.data.workers = 1
    config.inference.batch_size = 8
    config.data.splits.test = "train.txt"  # which training doesn't read
    assert runs.train(config, run.workdir) == run.summary


def test_an_evaluation_does_not_go_into_the_folder_of_a_run(run):
    before = contents(run.workdir)
    with refused(str(run.workdir), "folder of a run", "--out"):
        runs.evaluate(run.workdir, "test", run.workdir)
    assert contents(run.workdir) == before


def test_a_checkpoint_of_another_model_is_named(run, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(run.workdir, workdir)
    config = json.loads((workdir / "config.json").read_text())
    config["model"]["dim"] = 32
    (workdir / "config.json").write_text(json.dumps(config))
    with refused("checkpoints/best", "another model", "--workdir"):
        runs.evaluate(workdir, "test", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    other = tiny_config(run.root)
    other.model.dim = 32
    with refused("checkpoints/latest", "another model", "--workdir"):
        runs.train(other, workdir)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"training.batch_size": 12}, ("training.batch_size", "12", "multiple of 8")),
        ({"training.batch_size": 0}, ("training.batch_size",)),
        ({"optimizer.warmup_epochs": 3}, ("optimizer.warmup_epochs", "training.epochs")),
        ({"optimizer.schedule": "daily"}, ("optimizer.schedule", "daily")),
        ({"inference.stride_seconds": 21.0}, ("inference.stride_seconds", "clip.seconds")),
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
    run, tmp_path, change, words
):
    config = tiny_config(run.root)
    config.update_from_flattened_dict(change)
    with refused(*words):
        runs.train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_file_is_no_folder_for_a_run(run, tmp_path):
    (tmp_path / "run").write_text("")
    with refused(str(tmp_path / "run"), "--workdir"):
        runs.train(tiny_config(run.root), tmp_path / "run")


def test_a_split_that_is_not_set_is_named(run, tmp_path):
    with refused("data.splits.valid"):
        runs.evaluate(run.workdir, "valid", tmp_path / "out", ["--config.data.splits.valid="])
