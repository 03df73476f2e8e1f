"""An evaluation of a run: what it writes, scores and refuses."""

import dataclasses
import json
import math
import shutil
import zipfile

import jax
import pytest
from helpers.runs import ASTRA, FinishedRun, contents, finished_run, refused
from helpers.tiny import VALID

from astra_jax import runs
from astra_jax.cli.main import main
from astra_jax.config.classes import CLASSES
from astra_jax.evaluation.metrics import METRICS
from astra_jax.spotting.programs import Programs


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, compile_once: None) -> FinishedRun:
    return finished_run(tmp_path_factory.getbasetemp() / "finished_run")


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


def test_an_evaluation_without_memory_names_the_key(run, tmp_path):
    class TooLarge(Programs):
        def predict(self, *args: object) -> None:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")

    components = dataclasses.replace(ASTRA, make_programs=TooLarge)
    with refused("out of memory", "inference.batch_size"):
        runs.evaluate(run.workdir, "test", tmp_path / "out", components=components)
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
    blocks = runs.evaluate(run.workdir, "valid.txt", tmp_path / "out", components=ASTRA)
    assert blocks["tight"]["a_mAP"] == run.blocks["tight"]["a_mAP"]


def test_an_evaluation_leaves_the_folder_of_the_run_as_it_is(run, tmp_path):
    """A training may be at work there, its unfinished checkpoints among the others."""
    workdir = tmp_path / "run"
    shutil.copytree(run.workdir, workdir)
    unfinished = workdir / "checkpoints" / "latest" / "12.orbax-checkpoint-tmp"
    unfinished.mkdir()
    (unfinished / "part").write_text("being written")
    before = contents(workdir)
    runs.evaluate(workdir, "test", tmp_path / "out", components=ASTRA)
    assert contents(workdir) == before


def test_evaluating_before_the_first_validation_says_so(run, tmp_path):
    shutil.copy(run.workdir / "config.json", tmp_path)
    with refused("best", "no checkpoint yet"):
        runs.evaluate(tmp_path, "test", tmp_path / "out", components=ASTRA)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json"}


def test_an_evaluation_does_not_go_into_the_folder_of_a_run(run):
    before = contents(run.workdir)
    with refused(str(run.workdir), "folder of a run", "--out"):
        runs.evaluate(run.workdir, "test", run.workdir, components=ASTRA)
    assert contents(run.workdir) == before


def test_a_split_that_is_not_set_is_named(run, tmp_path):
    with refused("data.splits.valid"):
        runs.evaluate(
            run.workdir,
            "valid",
            tmp_path / "out",
            ["--config.data.splits.valid="],
            components=ASTRA,
        )
