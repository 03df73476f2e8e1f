"""A run that is told to end: it saves what it has, and goes on to the same end."""

import dataclasses
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.faults import COMPONENTS, at_step, command, latest, tell, undisturbed
from helpers.kills import end_faults
from helpers.tiny import write_data

from astra_jax.cli.main import main
from astra_jax.spotting.programs import Programs

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def whole(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return undisturbed(root, tmp_path_factory.mktemp("whole") / "run")


def test_a_signal_ends_the_run_after_its_step_and_it_goes_on_to_the_same_end(
    root, whole, tmp_path, capsys
):
    workdir = tmp_path / "run"
    handlers = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    assert main(command(root, workdir), at_step(5, lambda: tell(signal.SIGTERM))) == 143
    said = capsys.readouterr().err.splitlines()
    assert said[-1].startswith("ended by SIGTERM after step 5, saved: ")
    assert "same command" in said[-1]
    assert latest(workdir) == [3, 5] and not (workdir / "run.lock").exists()
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == handlers
    assert main(command(root, workdir), COMPONENTS) == 0
    assert end_faults(workdir, whole) == []


def test_a_signal_at_the_end_of_an_epoch_leaves_its_validation_to_the_next_run(
    root, whole, tmp_path
):
    workdir = tmp_path / "run"
    assert main(command(root, workdir), at_step(6, lambda: tell(signal.SIGTERM))) == 143
    assert latest(workdir)[-1] == 6
    assert len((workdir / "metrics.jsonl").read_text().splitlines()) == 1
    assert main(command(root, workdir), COMPONENTS) == 0
    assert end_faults(workdir, whole) == []


def test_a_signal_in_a_validation_does_not_wait_for_its_end(root, whole, tmp_path, capsys):
    workdir, predicted = tmp_path / "run", []

    class Told(Programs):
        def predict(self, *args: Any) -> Any:
            predicted.append(args)
            if len(predicted) == 2:  # after the batch that is tried before the first step
                tell(signal.SIGINT)
            return super().predict(*args)

    components = dataclasses.replace(COMPONENTS, make_programs=Told)
    assert main(command(root, workdir), components) == 130
    assert len(predicted) == 3  # of two halves, two batches each
    assert "ended by SIGINT after step 3, saved" in capsys.readouterr().err
    assert main(command(root, workdir), COMPONENTS) == 0
    assert end_faults(workdir, whole) == []


def test_a_signal_before_the_first_step_ends_the_process_at_once_and_leaves_nothing(root, tmp_path):
    workdir = tmp_path / "run"
    code = (
        "import os, signal, sys, time; from astra_jax import cli\n"
        "from astra_jax.runs.components import Components\n"
        "def told(*_): os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)\n"
        f"sys.exit(cli.main({command(root, workdir)!r}, Components(make_optimizer=told)))"
    )
    paths = os.pathsep.join([str(HERE), str(HERE.parent)])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == 143, done.stderr
    assert done.stderr.strip().startswith("ended by SIGTERM: the same command again")
    assert not workdir.exists()


def test_a_signal_that_ends_the_loading_processes_as_well_leaves_a_saved_state(
    root, whole, tmp_path, capsys
):
    """As Slurm's, which goes to every process of a job."""
    workdir = tmp_path / "run"

    def tell_all() -> None:
        loading = multiprocessing.active_children()
        assert loading
        for process in loading:
            process.terminate()
            process.join()
        tell(signal.SIGTERM)

    with_process = command(root, workdir, "--config.data.workers=1")
    assert main(with_process, at_step(2, tell_all)) == 143
    assert "after step 2, saved" in capsys.readouterr().err
    assert main(command(root, workdir), COMPONENTS) == 0
    assert end_faults(workdir, whole) == []
