"""The same command on a finished run, and on one that goes on: nothing more than each needs."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any, NoReturn

import pytest
from helpers.faults import at_step
from helpers.kills import end_faults
from helpers.runs import LINEAR, contents, refused
from helpers.tiny import tiny_config, write_data
from ml_collections import ConfigDict

from astra_jax import runs
from astra_jax.errors import UserError
from astra_jax.runs import prepare
from astra_jax.runs.components import Components


def never(*args: Any, **kwargs: Any) -> NoReturn:
    raise AssertionError("not needed")


NOTHING = Components(**{field.name: never for field in dataclasses.fields(Components)})
ONLY_SHAPES = dataclasses.replace(NOTHING, make_model=LINEAR.make_model)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, of which the data are gone."""
    folder = tmp_path_factory.mktemp("finished")
    runs.train(config_of(folder), folder / "run", components=LINEAR)
    shutil.rmtree(folder / "data")
    return folder


def config_of(folder: Path) -> ConfigDict:
    config = tiny_config(folder / "data")
    if not (folder / "data").exists():
        write_data(folder / "data")
    config.training.average_decay = 0.5
    return config


@pytest.fixture
def run(first: Path, tmp_path: Path) -> Path:
    shutil.copytree(first / "run", tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def config(first: Path) -> ConfigDict:
    config = tiny_config(first / "data")
    config.training.average_decay = 0.5
    return config


def test_a_finished_run_says_so_without_data_or_any_computation(run, config, caplog, monkeypatch):
    monkeypatch.setattr(prepare, "index_halves", never)
    for step in run.glob("checkpoints/*/*/*/d"):  # every array of every checkpoint
        shutil.rmtree(step)
    before, summary = contents(run), json.loads((run / "summary.json").read_text())
    with caplog.at_level("INFO", "astra_jax"):
        assert runs.train(config, run, components=NOTHING) == summary
    assert caplog.messages == [
        f"{run}: this run is finished; evaluate it, or choose another --workdir"
    ]
    assert contents(run) == before


@pytest.mark.parametrize("content", [None, "{", "[]", '{"steps": 9}', "of an earlier history"])
def test_a_summary_that_is_gone_or_of_another_end_is_written_anew(run, config, content):
    path = run / "summary.json"
    whole = path.read_bytes()
    path.unlink()
    if content == "of an earlier history":
        content = json.dumps(json.loads(whole) | {"best_epoch": 77})
    if content is not None:
        path.write_text(content)
    assert runs.train(config, run, components=ONLY_SHAPES)["steps"] == 9
    assert json.loads(path.read_text()) == json.loads(whole)


def test_a_config_that_may_differ_is_written_anew_and_another_one_is_refused(run, config):
    config.data.root = "/elsewhere"
    runs.train(config, run, components=NOTHING)
    assert json.loads((run / "config.json").read_text())["data"]["root"] == "/elsewhere"
    config.training.epochs = 4
    before = contents(run)
    with refused("training.epochs differ"):
        runs.train(config, run, components=NOTHING)
    assert contents(run) == before


def test_without_its_config_a_finished_run_is_looked_at_as_a_whole(run, first, tmp_path):
    (run / "config.json").unlink()
    config = config_of(tmp_path)
    summary = runs.train(config, run, components=LINEAR)
    assert summary["steps"] == 9 and (run / "config.json").exists()
    assert [path.name for path in (run / "checkpoints" / "best").iterdir()] != []


def test_devices_that_a_finished_run_could_not_be_split_over_are_no_fault(run, config, monkeypatch):
    summary = json.loads((run / "summary.json").read_text())
    monkeypatch.setattr("jax.device_count", lambda: 3)
    assert runs.train(config, run, components=NOTHING) == summary


def test_a_process_that_sees_the_end_late_ends_with_the_first_one(run, config, monkeypatch):
    summary = json.loads((run / "summary.json").read_text())
    shutil.rmtree(run / "checkpoints" / "latest")
    monkeypatch.setattr("astra_jax.runs.finished.ask_first_process", lambda answer: True)
    assert runs.train(config, run, components=NOTHING) == summary


def test_progress_that_cannot_be_read_just_now_ends_in_one_line(run, config, monkeypatch):
    monkeypatch.setattr("astra_jax.training.checkpoint_faults.WAITS_SECONDS", ())
    before, read = contents(run), Path.read_text

    def stale(path: Path, *args: Any, **kwargs: Any) -> str:
        if path.name == "metadata":
            raise OSError(116, "Stale file handle", str(path))
        return read(path, *args, **kwargs)

    monkeypatch.setattr(Path, "read_text", stale)
    with refused("latest/9", "cannot be read now", "Stale file handle"):
        runs.train(config, run, components=NOTHING)
    monkeypatch.undo()
    left = contents(run)
    assert "latest/9" in left.pop("log.txt")[0].decode()
    assert left == {name: of for name, of in before.items() if name != "log.txt"}


def test_a_run_that_goes_on_draws_no_state(first, tmp_path):
    """Beside the one that it restores, there would be two on the devices."""
    config, workdir = config_of(tmp_path), tmp_path / "run"

    def stop() -> None:
        raise UserError("stopped")

    stopped = dataclasses.replace(LINEAR, put_batch=at_step(5, stop).put_batch)
    with pytest.raises(UserError, match="stopped"):
        runs.train(config, workdir, components=stopped)
    drawing = dataclasses.replace(LINEAR, init_state=never)
    summary = runs.train(config, workdir, components=drawing)
    assert summary["steps"] == 9
    assert end_faults(workdir, first / "run") == []
