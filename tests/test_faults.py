"""Faults of everyday runs: signals, two runs in a folder, bad steps, damaged files, full disks."""

import contextlib
import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers.kills import end_faults
from helpers.tiny import TRAIN, tiny_config, write_data

from astra_jax import runs
from astra_jax.cli.main import main
from astra_jax.errors import UserError
from astra_jax.files import append_line
from astra_jax.runs.lock import locked
from astra_jax.training import journal, loop

pytestmark = pytest.mark.usefixtures("module_on_one_device", "programs_once")
HERE = Path(__file__).parent
STEPS = 9  # of a tiny run, three an epoch


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def whole(
    root: Path,
    tmp_path_factory: pytest.TempPathFactory,
    module_on_one_device: None,
    programs_once: None,
) -> Path:
    """The folder of a run that nothing befell."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    runs.train(tiny_config(root), workdir)
    return workdir


def command(root: Path, workdir: Path, *more: str) -> list[str]:
    config = ["--config", str(HERE / "helpers" / "tiny.py"), f"--config.data.root={root}"]
    return ["train", *config, "--workdir", str(workdir), *more]


def at_step(monkeypatch: pytest.MonkeyPatch, number: int, act: Callable[[], None]) -> None:
    """Calls `act` before step `number` (from 1) of the next run in this process is taken."""
    taken, put_batch = 0, loop.put_batch

    def acting(batch, sharding):
        nonlocal taken
        taken += 1
        if taken == number:
            act()
        return put_batch(batch, sharding)

    monkeypatch.setattr(loop, "put_batch", acting)


def tell(number: int) -> None:
    """A signal to this process; the thread that takes it has had its time."""
    os.kill(os.getpid(), number)
    time.sleep(0.3)


def latest(workdir: Path) -> list[int]:
    folder = workdir / "checkpoints" / "latest"
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())


# Signals


def test_a_signal_ends_the_run_behind_its_step_and_it_goes_on_to_the_same_end(
    root, whole, tmp_path, monkeypatch, capsys
):
    workdir = tmp_path / "run"
    handlers = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        at_step(patch, 5, lambda: tell(signal.SIGTERM))
        assert main(command(root, workdir)) == 143
    said = capsys.readouterr().err.splitlines()
    assert said[-1].startswith("ended by SIGTERM behind step 5, saved: ")
    assert "same command" in said[-1]
    assert latest(workdir) == [3, 5] and not (workdir / "run.lock").exists()
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == handlers
    assert main(command(root, workdir)) == 0
    assert end_faults(workdir, whole) == []


def test_a_signal_at_the_end_of_an_epoch_leaves_its_validation_to_the_next_run(
    root, whole, tmp_path, monkeypatch
):
    workdir = tmp_path / "run"
    with monkeypatch.context() as patch:
        at_step(patch, 6, lambda: tell(signal.SIGTERM))
        assert main(command(root, workdir)) == 143
    assert latest(workdir)[-1] == 6
    assert len((workdir / "metrics.jsonl").read_text().splitlines()) == 1
    assert main(command(root, workdir)) == 0
    assert end_faults(workdir, whole) == []


def test_a_signal_in_a_validation_does_not_wait_for_its_end(
    root, whole, tmp_path, monkeypatch, capsys
):
    workdir, predicted = tmp_path / "run", []
    with monkeypatch.context() as patch:
        spots = runs.Predictor.spots

        def told(predictor, half):
            predicted.append(half.half)
            tell(signal.SIGINT)
            return spots(predictor, half)

        patch.setattr(runs.Predictor, "spots", told)
        assert main(command(root, workdir)) == 130
    assert predicted == [1]  # of two halves
    assert "ended by SIGINT behind step 3, saved" in capsys.readouterr().err
    assert main(command(root, workdir)) == 0
    assert end_faults(workdir, whole) == []


def test_a_signal_before_the_first_step_ends_the_process_at_once_and_leaves_nothing(root, tmp_path):
    workdir = tmp_path / "run"
    code = (
        "import os, signal, sys, time; from astra_jax import cli, preparation\n"
        "def told(*_, **__): os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)\n"
        f"preparation.index_halves = told; sys.exit(cli.main({command(root, workdir)!r}))"
    )
    paths = os.pathsep.join([str(HERE), str(HERE.parent)])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == 143
    assert done.stderr.strip().startswith("ended by SIGTERM: the same command again")
    assert not workdir.exists()


def test_a_signal_that_ends_the_loading_processes_as_well_leaves_a_saved_state(
    root, whole, tmp_path, monkeypatch, capsys
):
    """As Slurm's, which goes to every process of a job."""
    workdir = tmp_path / "run"

    def tell_all() -> None:
        for process in multiprocessing.active_children():
            process.terminate()
            process.join()
        tell(signal.SIGTERM)

    with monkeypatch.context() as patch:
        at_step(patch, 2, tell_all)
        assert main(command(root, workdir, "--config.data.workers=1")) == 143
    assert "behind step 2, saved" in capsys.readouterr().err
    assert main(command(root, workdir)) == 0
    assert end_faults(workdir, whole) == []


# Two runs in one folder


def test_a_second_run_in_a_folder_stops_and_names_the_first(root, tmp_path, capsys):
    workdir = tmp_path / "run"
    with locked(workdir):
        assert main(command(root, workdir)) == 2
        told = json.loads((workdir / "run.lock").read_text())
    (line,) = capsys.readouterr().err.splitlines()
    assert told["process"] == os.getpid()
    for word in (str(workdir), told["host"], f"process {os.getpid()}", told["started"]):
        assert word in line
    assert not workdir.exists()  # made for the lock, and nothing was put into it


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path, caplog):
    holding = (
        "import sys, time; from pathlib import Path; from astra_jax.lock import locked\n"
        "with locked(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", holding, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(HERE.parent)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    with pytest.raises(UserError, match=f"process {process.pid}"), locked(tmp_path):
        pass
    process.kill()
    process.communicate()
    assert (tmp_path / "run.lock").exists()
    with locked(tmp_path):
        assert f"process {process.pid}, since" in caplog.text and "taken over" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_a_fault_gives_the_lock_back(root, tmp_path):
    with pytest.raises(RuntimeError), locked(tmp_path / "new" / "run"):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


# Steps that are not finite


def poisoned(monkeypatch: pytest.MonkeyPatch, steps: set[int]) -> None:
    """Makes the inputs of these steps (from 1) infinite, on the way to the device."""
    taken, put_batch = 0, loop.put_batch

    def poison(batch, sharding):
        nonlocal taken
        taken += 1
        if taken in steps:
            batch = batch | {"features": tuple(x * np.float32(np.inf) for x in batch["features"])}
        return put_batch(batch, sharding)

    monkeypatch.setattr(loop, "put_batch", poison)


def test_steps_that_are_not_finite_are_skipped_and_counted(root, tmp_path, monkeypatch, capsys):
    poisoned(monkeypatch, {4, 5})
    summary = runs.train(tiny_config(root), tmp_path)
    assert summary["steps"] == STEPS
    said = capsys.readouterr()
    assert "step 4: skipped" in said.out and "step 5: skipped" in said.out
    epochs = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["skipped_steps"] for line in epochs] == [0, 2, 0]
    assert all(np.isfinite(line["loss"]) and line["loss"] > 0 for line in epochs)


def test_too_many_skipped_in_a_row_end_the_run_and_name_the_clips(root, tmp_path, monkeypatch):
    poisoned(monkeypatch, {2, 5, 6, 7, 8})
    config = tiny_config(root)
    config.training.most_skipped_steps = 3
    with pytest.raises(UserError) as error:
        runs.train(config, tmp_path)
    message = str(error.value)
    assert "3 steps in a row" in message and "the last one step 7 with the clips" in message
    # Batches of 8: each clip of the batch is named, by match, half and start.
    assert message.count(f"{TRAIN} half ") == 8 and " s" in message and "\n" not in message
    assert latest(tmp_path) == [3, 6]


# Damaged checkpoints


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.usefixtures("orbax_may_complain")
def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before(
    root, whole, tmp_path, monkeypatch, capsys
):
    workdir = tmp_path / "run"
    with monkeypatch.context() as patch:
        at_step(patch, 8, lambda: tell(signal.SIGTERM))
        assert main(command(root, workdir)) == 143
    assert latest(workdir) == [6, 8]
    data = workdir / "checkpoints" / "latest" / "8" / "state" / "d"
    for file in data.iterdir():
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    capsys.readouterr()
    assert main(command(root, workdir)) == 0
    warnings = [line for line in capsys.readouterr().err.splitlines() if "is damaged" in line]
    assert len(warnings) == 1
    assert "latest/8: " in warnings[0] and "going on from step 6" in warnings[0]
    assert end_faults(workdir, whole) == []


# Disks


@contextlib.contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """A disk that takes no file above `size` bytes, for this process."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.usefixtures("orbax_may_complain")
def test_a_checkpoint_that_the_disk_does_not_take_leaves_the_one_before(
    root, whole, tmp_path, monkeypatch, capsys
):
    workdir = tmp_path / "run"
    with monkeypatch.context() as patch, contextlib.ExitStack() as limit:

        def fill() -> None:
            # The checkpoint of step 3 is written in the background.
            deadline = time.monotonic() + 60
            while latest(workdir) != [3] and time.monotonic() < deadline:
                time.sleep(0.05)
            limit.enter_context(files_of_at_most(10_000))

        at_step(patch, 5, fill)
        assert main(command(root, workdir)) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"error: {workdir}/checkpoints: a checkpoint cannot be written (File")
    assert "that of step 3 is intact" in error
    assert latest(workdir) == [3]
    assert main(command(root, workdir)) == 0
    assert end_faults(workdir, whole) == []


def test_a_line_of_metrics_that_the_disk_does_not_take_is_one_line(
    root, whole, tmp_path, monkeypatch, capsys
):
    workdir = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(
            journal, "append_line", lambda path, line: append_line(Path("/dev/full"), line)
        )
        assert main(command(root, workdir)) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: /dev/full: No space left on device; free some space")
    assert main(command(root, workdir)) == 0
    assert end_faults(workdir, whole) == []


def test_a_folder_that_cannot_be_written_to_is_one_line(root, capsys):
    workdir = Path("/sys/astra_run")  # refused to root as well
    if not workdir.parent.is_dir():
        pytest.skip("no /sys here")
    assert main(command(root, workdir)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {workdir}: ")


# Data


@pytest.mark.parametrize(("fault", "workers"), [("vanishes", 0), ("shrinks", 1)])
def test_a_file_that_changes_in_the_middle_of_a_run_is_one_line(
    tmp_path, monkeypatch, capsys, fault, workers
):
    root = write_data(tmp_path / "data")
    file = root / TRAIN / "2_wide.npy"

    def change() -> None:
        if fault == "vanishes":
            file.unlink()
        else:
            file.write_bytes(file.read_bytes()[:-4])

    at_step(monkeypatch, 2, change)
    overrides = [f"--config.data.workers={workers}", "--config.training.epochs=40"]
    assert main(command(root, tmp_path / "run", *overrides)) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[-1].startswith(f"error: {file}: the file changed since it was indexed")
    assert not any("Traceback" in line for line in said)
