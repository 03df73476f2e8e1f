"""What `astra runs` tells of the runs below a folder."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.tiny import tiny_config

from astra_jax.cli.main import main
from astra_jax.config.saved import to_json
from astra_jax.runs.listing import find_runs, table

SCORES = (0.25, 0.5, 0.5, 0.375)


def write_run(folder: Path, epochs: int = 4, finished: bool = True, **training: Any) -> Path:
    """A run of three steps an epoch; the validation scores are SCORES."""
    config = tiny_config(Path("data"))
    config.training.update(epochs=4, **training)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(to_json(config))
    lines = [
        {"epoch": k, "step": 3 * k, "validation": {"score": score}, "seconds": 10.0 * k}
        for k, score in enumerate(SCORES[:epochs], start=1)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for step in (3 * epochs - 3, 3 * epochs):
        (folder / "checkpoints" / "latest" / str(step)).mkdir(parents=True)
    started = {"started": "2026-11-22T11:30:05+00:00"}
    (folder / "provenance.json").write_text(json.dumps({"starts": [started, {}]}))
    if finished:
        summary = {"epochs": 4, "best_epoch": 3, "best_validation_tight": 0.5, "seconds": 41.7}
        (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def write_scores(out: Path, tight: float, loose: float) -> None:
    out.mkdir()
    blocks = {"tight": {"a_mAP": tight}, "loose": {"a_mAP": loose}}
    (out / "metrics.json").write_text(json.dumps(blocks))


def test_a_finished_run_tells_its_scores(tmp_path):
    folder = write_run(tmp_path / "a")
    write_scores(folder / "test", 0.6682, 0.7809)
    (run,) = find_runs(tmp_path)
    assert (run.name, run.state, run.epochs) == ("a", "finished", 4)
    assert (run.best_epoch, run.validation, run.seconds) == (3, 0.5, 41.7)
    assert run.scores == {"test": {"tight": 0.6682, "loose": 0.7809}}
    assert run.started == "2026-11-22T11:30:05+00:00" and run.damaged == []


def test_lines_of_steps_are_no_epochs_and_no_damage(tmp_path):
    folder = write_run(tmp_path / "a", epochs=2, finished=False)
    with open(folder / "metrics.jsonl", "a") as file:
        file.write('{"step": 7, "loss": 0.5, "gradient_norm": 2.0}\n')
    (run,) = find_runs(tmp_path)
    assert (run.epochs, run.best_epoch, run.seconds, run.damaged) == (2, 2, 20.0, [])


def test_scores_of_what_has_files_are_no_scores_of_the_run(tmp_path):
    out = write_run(tmp_path / "a") / "test"
    write_scores(out, 0.5, 0.75)
    blocks = json.loads((out / "metrics.json").read_text())
    blocks["covered"] = {"tight": {"a_mAP": 1.0}, "loose": {"a_mAP": 1.0}}
    (out / "metrics.json").write_text(json.dumps(blocks))
    (run,) = find_runs(tmp_path)
    assert run.scores == {"test": {"tight": 0.5, "loose": 0.75}} and run.damaged == []


def test_a_stopped_run_tells_how_far_it_came_and_its_best_epoch_so_far(tmp_path):
    write_run(tmp_path / "a", epochs=3, finished=False)
    (run,) = find_runs(tmp_path)
    assert run.state == "stopped at step 9 of 12"
    # Of two equal scores the later epoch is the best, as in training.
    assert (run.epochs, run.best_epoch, run.validation, run.seconds) == (3, 3, 0.5, 30.0)


def ended_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.parametrize(
    ("host", "process", "word"),
    [
        (socket.gethostname(), os.getpid, "running"),
        (socket.gethostname(), ended_process, "killed"),
        ("elsewhere", os.getpid, "running or killed"),
        (socket.gethostname(), lambda: "one", "running or killed"),
    ],
)
def test_a_run_with_a_lock_runs_or_was_killed(tmp_path, host, process, word):
    lock = write_run(tmp_path / "a", epochs=2, finished=False) / "run.lock"
    lock.write_text(json.dumps({"host": host, "process": process()}))
    (run,) = find_runs(tmp_path)
    assert run.state == f"{word} at step 6 of 12" and run.damaged == []


@pytest.mark.parametrize("content", ["", "[1]", "{}"])
def test_a_lock_that_says_nothing_is_no_damage(tmp_path, content):
    folder = write_run(tmp_path / "a", epochs=2, finished=False)
    (folder / "run.lock").write_text(content)
    (run,) = find_runs(tmp_path)
    assert run.state == "running or killed at step 6 of 12" and run.damaged == []


def test_a_run_before_its_first_epoch_has_nothing_to_tell(tmp_path):
    write_run(tmp_path / "a", epochs=0, finished=False)
    (run,) = find_runs(tmp_path)
    assert run.state == "stopped at step 0"
    assert (run.epochs, run.best_epoch, run.validation, run.seconds) == (None,) * 4
    assert "a    stopped at step 0  -       -     -" in table([run])


def test_runs_are_found_at_several_depths_and_nothing_else_is(tmp_path):
    for name in ("b", "a/x", "a/y/z/deep"):
        write_run(tmp_path / name)
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "config.json").write_text("{}")  # no run: nothing of one beside it
    (tmp_path / "b" / "matches" / "d").mkdir(parents=True)
    assert [run.name for run in find_runs(tmp_path)] == ["a/x", "a/y/z/deep", "b"]
    (run,) = find_runs(tmp_path / "b")  # itself a run
    assert run.name == "b"


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff", b"[" * 100_000])
@pytest.mark.parametrize("name", ["config.json", "summary.json", "provenance.json"])
def test_a_damaged_file_is_a_line_and_the_rest_is_told(tmp_path, capsys, name, content):
    folder = write_run(tmp_path / "a")
    (folder / name).write_bytes(content)
    write_run(tmp_path / "b")
    assert main(["runs", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    title, first, second, damaged = out.splitlines()
    assert first.startswith("a ") and second.startswith("b ") and err == ""
    assert damaged.startswith(f"{folder / name}: damaged, left out (")


def test_damaged_lines_and_scores_are_counted(tmp_path):
    folder = write_run(tmp_path / "a", epochs=2, finished=False)
    with open(folder / "metrics.jsonl", "a") as file:
        file.write('[]\n{"epoch": 3, "st')
    write_scores(folder / "test", 0.5, 0.5)
    (folder / "test" / "metrics.json").write_text('{"tight": 3}')
    (run,) = find_runs(tmp_path)
    assert run.epochs == 2 and run.scores == {}
    assert "2 damaged line(s)" in run.damaged[0] and "no tight and loose" in run.damaged[1]


# The command


def test_the_table_has_a_line_a_run(tmp_path, capsys):
    folder = write_run(tmp_path / "a")
    write_scores(folder / "test", 0.6682, 0.7809)
    write_run(tmp_path / "other", epochs=2, finished=False)
    assert main(["runs", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "run    state                    epochs  best  valid  tight / loose       seconds  started",
        "a      finished                 4       3     50.00  test 66.82 / 78.09  42       "
        "2026-11-22 11:30",
        "other  stopped at step 6 of 12  2       2     50.00  -                   20       "
        "2026-11-22 11:30",
    ]


def test_the_list_as_json(tmp_path, capsys):
    write_run(tmp_path / "a")
    assert main(["runs", str(tmp_path), "--json"]) == 0
    (run,) = json.loads(capsys.readouterr().out)
    assert (run["name"], run["state"], run["validation"]) == ("a", "finished", 0.5)


def test_a_folder_without_runs_says_so(tmp_path, capsys):
    assert main(["runs", str(tmp_path)]) == 0
    assert "no run in it" in capsys.readouterr().out
    assert main(["runs", str(tmp_path / "none")]) == 2
    assert "no such folder" in capsys.readouterr().err


def test_config_keys_that_differ_between_two_runs(tmp_path, capsys):
    write_run(tmp_path / "a")
    write_run(tmp_path / "b", batch_size=16)
    path = tmp_path / "b" / "config.json"
    config = json.loads(path.read_text())
    config["data"]["splits"]["extra"] = "extra.txt"
    path.write_text(json.dumps(config))
    assert main(["runs", str(tmp_path), "--config", "a", "b"]) == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["key", "a", "b"],
        ["data.splits.extra", "null", '"extra.txt"'],
        ["training.batch_size", "8", "16"],
    ]
    assert main(["runs", str(tmp_path), "--json", "--config", "a", str(tmp_path / "b")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == {"data.splits.extra": [None, "extra.txt"], "training.batch_size": [8, 16]}
    assert main(["runs", str(tmp_path), "--config", "a", "a"]) == 0
    assert "the same" in capsys.readouterr().out
    assert main(["runs", str(tmp_path), "--config", "a", "c"]) == 2
    assert "c/config.json" in capsys.readouterr().err


def test_listing_and_comparing_do_not_wait_for_jax(tmp_path):
    for name in "ab":
        write_run(tmp_path / name)
    code = "import sys, astra_jax.cli as c; a = ['runs', sys.argv[1]]"
    code += "; c.main(a); c.main([*a, '--config', 'a', 'b']); sys.exit('jax' in sys.modules)"
    command = [sys.executable, "-c", code, str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    assert subprocess.run(command, stdout=subprocess.DEVNULL, env=environment).returncode == 0


def test_links_that_go_in_circles_or_nowhere_are_no_runs_of_their_own(tmp_path):
    write_run(tmp_path / "a")
    (tmp_path / "latest").symlink_to(tmp_path)
    (tmp_path / "again").symlink_to(tmp_path / "a")
    gone = write_run(tmp_path / "gone") / "config.json"
    gone.unlink()
    gone.symlink_to(tmp_path / "nowhere")
    assert sorted(run.name for run in find_runs(tmp_path)) == ["a", "gone"]


@pytest.mark.parametrize("value", ["1e999", "NaN", "1" + "0" * 400])
def test_a_score_that_is_no_number_is_none(tmp_path, value):
    path = write_run(tmp_path / "a") / "summary.json"
    summary = json.loads(path.read_text()) | {"best_validation_tight": "HERE"}
    path.write_text(json.dumps(summary).replace('"HERE"', value))
    (run,) = find_runs(tmp_path)
    assert run.validation is None and "nan" not in table([run]).lower()
