"""`--profile`: a trace of some steps in the run's folder."""

import gzip
import json
import signal
from pathlib import Path

import jax
import pytest
from helpers.faults import COMPONENTS, at_step, command, tell
from helpers.tiny import write_data

from astra_jax.cli.main import main


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


def train(root: Path, workdir: Path, *flags: str) -> int:
    """A run of nine steps, three an epoch."""
    return main(command(root, workdir, *flags), COMPONENTS)


def traced_steps(workdir: Path) -> list[list[int]]:
    """The steps in each trace, by its name."""
    found = []
    for file in sorted((workdir / "profile").rglob("perfetto_trace.json.gz")):
        events = json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]
        found.append(sorted(int(e["args"]["step_num"]) for e in events if e.get("name") == "train"))
    return found


def test_steps_after_the_first_ones_are_traced(root, tmp_path, capsys):
    assert train(root, tmp_path, "--profile", "4") == 0
    assert traced_steps(tmp_path) == [[4, 5, 6, 7]]
    assert len(list((tmp_path / "profile").rglob("*.xplane.pb"))) == 1  # for TensorBoard
    assert f"4 step(s) traced: tensorboard --logdir {tmp_path}/profile" in capsys.readouterr().out


def test_a_run_that_goes_on_can_be_traced(root, tmp_path, capsys):
    interrupted = at_step(2, lambda: tell(signal.SIGTERM))
    assert main(command(root, tmp_path, "--profile", "5"), interrupted) == 143
    assert "no step traced" in capsys.readouterr().out
    assert main(command(root, tmp_path, "--profile", "100"), COMPONENTS) == 0
    assert traced_steps(tmp_path) == [[6, 7, 8, 9]]
    assert "4 step(s) traced" in capsys.readouterr().out
    # It decides nothing: the same command is the same run, which is finished.
    assert main(command(root, tmp_path, "--profile", "5"), COMPONENTS) == 0
    assert "no step is left to be traced" in capsys.readouterr().err
    assert len(traced_steps(tmp_path)) == 1


def test_a_run_that_ends_where_the_trace_begins_says_that_there_is_none(root, tmp_path, capsys):
    interrupted = at_step(3, lambda: tell(signal.SIGTERM))
    assert main(command(root, tmp_path, "--profile", "5"), interrupted) == 143
    said = capsys.readouterr().out
    assert "no step traced" in said and "step(s) traced" not in said


def test_a_trace_that_cannot_be_written_ends_no_run(root, tmp_path, capsys, monkeypatch):
    stop = jax.profiler.stop_trace

    def stop_on_a_full_disk() -> None:
        stop()
        raise RuntimeError("RESOURCE_EXHAUSTED: No space left on device")

    monkeypatch.setattr(jax.profiler, "stop_trace", stop_on_a_full_disk)
    assert train(root, tmp_path, "--profile", "2") == 0
    said = capsys.readouterr().out
    assert f"{tmp_path}/profile: no trace (RESOURCE_EXHAUSTED: No space left" in said
    assert "traced" not in said and (tmp_path / "summary.json").exists()


@pytest.mark.parametrize("steps", ["0", "-1", "1.5", "ten", "", "99999999999"])
def test_steps_must_be_a_whole_number(root, tmp_path, capsys, steps):
    with pytest.raises(SystemExit) as ended:
        train(root, tmp_path / "run", f"--profile={steps}")
    (line,) = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2 and line.startswith("error: argument --profile: ")
    assert "a whole number from 1 to" in line and not (tmp_path / "run").exists()


@pytest.mark.parametrize("other", ["--dry-run", "--seeds=1,2"])
def test_it_is_one_run_that_is_traced(root, tmp_path, capsys, other):
    assert train(root, tmp_path / "run", "--profile=5", other) == 2
    assert f"leave {other.partition('=')[0]} out" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
