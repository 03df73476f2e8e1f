"""What a run's folder says of itself by the files that lie in it."""

import json
from pathlib import Path

import pytest
from helpers.runs import FinishedRun, finished_run
from helpers.tiny import tiny_config

from astra_jax.config.saved import to_json
from astra_jax.errors import UserError
from astra_jax.runs.folder import EvaluationFolder, RunFolder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, compile_once: None) -> FinishedRun:
    return finished_run(tmp_path_factory.getbasetemp() / "finished_run")


def test_a_folder_describes_the_run_that_was_trained_in_it(run):
    folder = RunFolder(run.workdir)
    assert folder.is_run() and not folder.is_imported() and not folder.holds_seeds()
    assert folder.latest_step() == 9 and folder.summary() == run.summary
    assert to_json(folder.config()) == to_json(tiny_config(run.root))
    named = {folder.config_path, folder.normalization_path, folder.provenance_path}
    named |= {folder.checkpoints, folder.metrics_path, folder.summary_path, folder.log_path}
    assert set(run.workdir.iterdir()) == named
    assert set(folder.checkpoints.iterdir()) == {
        folder.latest_checkpoints,
        folder.best_checkpoints,
    }


def test_a_folder_describes_an_evaluation(run):
    folder = EvaluationFolder(run.out)
    named = {folder.metrics_path, folder.provenance_path, folder.zip_path}
    assert set(run.out.iterdir()) == named | {run.out / "results"}


@pytest.mark.parametrize("part", ["metrics.jsonl", "summary.json", "checkpoints"])
def test_a_run_has_a_config_and_what_a_training_leaves(tmp_path, part):
    folder = RunFolder(tmp_path)
    assert not folder.is_run()
    (tmp_path / part).mkdir()
    assert not folder.is_run()
    (tmp_path / "config.json").write_text("{}")
    assert folder.is_run()
    (tmp_path / part).rmdir()
    assert not folder.is_run()


@pytest.mark.parametrize(
    ("content", "imported"),
    [('{"imported": "model.pth"}', True), ('{"starts": []}', False), ("{", False), ("[]", False)],
)
def test_imported_weights_say_so_in_the_provenance(tmp_path, content, imported):
    assert not RunFolder(tmp_path).is_imported()
    (tmp_path / "provenance.json").write_text(content)
    assert RunFolder(tmp_path).is_imported() is imported


def test_a_folder_of_several_seeds_holds_a_run_of_each(tmp_path):
    folder = RunFolder(tmp_path)
    folder.seed(3).path.mkdir()
    assert not folder.holds_seeds()  # nothing has begun in it
    folder.seed(3).config_path.write_text("{}")
    assert folder.holds_seeds() and not folder.is_run()


def test_the_latest_step_is_that_of_the_newest_complete_checkpoint(tmp_path):
    folder = RunFolder(tmp_path)
    assert folder.latest_step() == 0
    for name in ("9", "12", "100.orbax-checkpoint-tmp", "notes"):
        (folder.latest_checkpoints / name).mkdir(parents=True)
    assert folder.latest_step() == 12


def test_the_evaluations_in_a_folder_are_those_with_scores_by_name(tmp_path):
    folder = RunFolder(tmp_path)
    for name in ("valid", "test", "challenge"):
        (tmp_path / name).mkdir()
    for name in ("valid", "test"):
        EvaluationFolder(tmp_path / name).metrics_path.write_text("{}")
    found = [evaluation.path for evaluation in folder.evaluations()]
    assert found == [tmp_path / "test", tmp_path / "valid"]


def test_a_config_that_is_missing_or_damaged_is_an_error(tmp_path):
    folder = RunFolder(tmp_path)
    with pytest.raises(UserError, match="config.json"):
        folder.config()
    folder.config_path.write_text("{")
    with pytest.raises(UserError, match="not a run's config"):
        folder.config()


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff", b"[" * 100_000])
def test_a_damaged_summary_is_none(tmp_path, content):
    folder = RunFolder(tmp_path)
    assert folder.summary() is None
    folder.summary_path.write_bytes(content)
    assert folder.summary() is None
    folder.summary_path.write_text(json.dumps({"steps": 3}))
    assert folder.summary() == {"steps": 3}


def test_a_folder_may_be_named_from_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert RunFolder(Path("~/runs")).path == tmp_path / "runs"
    assert EvaluationFolder(Path("~/out")).path == tmp_path / "out"
    assert str(RunFolder(Path("~/runs"))) == str(tmp_path / "runs")


def test_a_file_is_no_folder(tmp_path):
    RunFolder(tmp_path).check_is_no_file()
    RunFolder(tmp_path / "none").check_is_no_file()
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        RunFolder(tmp_path / "file").check_is_no_file()


def test_a_folder_named_like_a_home_that_is_none_keeps_its_name() -> None:
    assert RunFolder(Path("~nobody_of_this_name")).path == Path("~nobody_of_this_name")
