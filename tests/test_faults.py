"""Faults in the middle of a run: steps that are not finite, damaged files, full disks."""

import contextlib
import json
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from helpers.faults import COMPONENTS, at_batch, at_step, command, latest, tell, undisturbed
from helpers.kills import end_faults
from helpers.tiny import TRAIN, tiny_config, write_data
from orbax.checkpoint._src.serialization import serialization

from astra_jax import runs
from astra_jax.cli.main import main
from astra_jax.cli.process import messages
from astra_jax.errors import UserError

STEPS = 9  # of a tiny run, three an epoch


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def whole(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return undisturbed(root, tmp_path_factory.mktemp("whole") / "run")


# Steps that are not finite


def infinite_at(*steps: int) -> Callable[[int, dict[str, Any]], dict[str, Any]]:
    """Makes the inputs of these steps (from 1) infinite."""

    def poison(step: int, batch: dict[str, Any]) -> dict[str, Any]:
        if step not in steps:
            return batch
        return batch | {"features": tuple(x * np.float32(np.inf) for x in batch["features"])}

    return poison


def test_steps_that_are_not_finite_are_skipped_and_counted(root, tmp_path, capsys):
    summary = runs.train(tiny_config(root), tmp_path, components=at_batch(infinite_at(4, 5)))
    assert summary["steps"] == STEPS
    said = capsys.readouterr()
    assert "step 4: skipped" in said.out and "step 5: skipped" in said.out
    epochs = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["skipped_steps"] for line in epochs] == [0, 2, 0]
    assert all(np.isfinite(line["loss"]) and line["loss"] > 0 for line in epochs)


def test_too_many_skipped_in_a_row_end_the_run_and_name_the_clips(root, tmp_path):
    config = tiny_config(root)
    config.training.most_skipped_steps = 3
    with pytest.raises(UserError) as error:
        runs.train(config, tmp_path, components=at_batch(infinite_at(2, 5, 6, 7, 8)))
    message = str(error.value)
    assert "3 steps in a row" in message and "the last one step 7 with the clips" in message
    # Batches of 8: each clip of the batch is named, by match, half and start.
    assert message.count(f"{TRAIN} half ") == 8 and " s" in message and "\n" not in message
    assert latest(tmp_path) == [3, 6]


# Damaged checkpoints


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.usefixtures("orbax_may_complain")
def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before(root, whole, tmp_path, capsys):
    workdir = tmp_path / "run"
    assert main(command(root, workdir), at_step(8, lambda: tell(signal.SIGTERM))) == 143
    assert latest(workdir) == [6, 8]
    data = workdir / "checkpoints" / "latest" / "8" / "state" / "d"
    for file in data.iterdir():
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    capsys.readouterr()
    assert main(command(root, workdir), COMPONENTS) == 0
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
    root, whole, tmp_path, capsys
):
    workdir = tmp_path / "run"
    with contextlib.ExitStack() as limit:

        def fill() -> None:
            # The checkpoint of step 3 is written in the background.
            deadline = time.monotonic() + 60
            while latest(workdir) != [3] and time.monotonic() < deadline:
                time.sleep(0.05)
            limit.enter_context(files_of_at_most(10_000))

        assert main(command(root, workdir), at_step(5, fill)) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"error: {workdir}/checkpoints: a checkpoint cannot be written (File")
    assert "that of step 3 is intact" in error
    assert latest(workdir) == [3]
    assert main(command(root, workdir), COMPONENTS) == 0
    assert end_faults(workdir, whole) == []


def test_a_line_of_metrics_that_the_disk_does_not_take_is_one_line(root, whole, tmp_path, capsys):
    workdir = tmp_path / "run"
    metrics = workdir / "metrics.jsonl"
    assert main(command(root, workdir), at_step(2, lambda: metrics.symlink_to("/dev/full"))) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"error: {metrics}: No space left on device; free some space")
    metrics.unlink()
    assert main(command(root, workdir), COMPONENTS) == 0
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
def test_a_file_that_changes_in_the_middle_of_a_run_is_one_line(tmp_path, capsys, fault, workers):
    root = write_data(tmp_path / "data")
    file = root / TRAIN / "2_wide.npy"

    def change() -> None:
        if fault == "vanishes":
            file.unlink()
        else:
            file.write_bytes(file.read_bytes()[:-4])

    overrides = [f"--config.data.workers={workers}", "--config.training.epochs=40"]
    assert main(command(root, tmp_path / "run", *overrides), at_step(2, change)) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[-1].startswith(f"error: {file}: the file changed since it was indexed")
    assert not any("Traceback" in line for line in said)


# On the terminal, where several files of a checkpoint are damaged


def test_threads_that_read_a_damaged_checkpoint_say_nothing(monkeypatch):
    """The first error is raised; the reads beside it ended with a traceback each."""
    reading = SimpleNamespace(cr_code=serialization.async_deserialize.__code__)
    others = SimpleNamespace(object=len, exc_value=Exception("of something else"))
    shown: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", shown.append)
    with messages():
        sys.unraisablehook(SimpleNamespace(object=reading, exc_value=Exception("a read failed")))
        sys.unraisablehook(others)
    assert shown == [others]
