"""Loading processes: silent when a run ends, and gone with it."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from multiprocessing import resource_tracker
from pathlib import Path

import pytest
from helpers.faults import command
from helpers.processes import ROOT, environment
from helpers.tiny import write_data

from astra_jax.data import workers

SHARED_MEMORY = Path("/dev/shm")


def test_a_worker_ends_when_the_process_that_started_it_has_ended(monkeypatch):
    """Also one that was killed: nothing else would end its workers."""
    parents, codes = iter([7, 7, 1]), []
    monkeypatch.setattr(workers.os, "getppid", lambda: next(parents))
    monkeypatch.setattr(workers.os, "_exit", codes.append)
    monkeypatch.setattr(workers.time, "sleep", lambda seconds: None)
    workers._end_with(7)
    assert codes == [1] and next(parents, None) is None


def test_a_worker_ends_whose_training_ended_while_it_was_importing():
    """Process 1 is its parent by then, and stays."""
    code = (
        "import os, time; from astra_jax.data import workers\n"
        "workers.prepare(os.getppid() + 1, 0, 1)\n"
        "time.sleep(60)"
    )
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=env, stderr=subprocess.PIPE, timeout=50)
    assert (done.returncode, done.stderr) == (1, b"")


def test_what_starts_is_deaf_to_ctrl_c_and_who_starts_it_is_not():
    def blocked() -> set[int]:
        return signal.pthread_sigmask(signal.SIG_BLOCK, ())

    before, found = blocked(), []
    with workers.starting():
        thread = threading.Thread(target=lambda: found.append(blocked()))
        thread.start()
        thread.join()
    assert found == [before | {signal.SIGINT}] and blocked() == before


def test_the_tracker_is_told_to_be_silent(monkeypatch):
    """It is a Python process that is handed our options; they stay what they are."""
    found, before = [], sys.warnoptions.copy()
    monkeypatch.setattr(
        resource_tracker, "ensure_running", lambda: found.append(sys.warnoptions.copy())
    )
    workers.start_tracker()
    assert found == [[*before, "ignore:resource_tracker:UserWarning"]]
    assert sys.warnoptions == before


def shared_memory() -> set[str]:
    """The names in use."""
    return set(os.listdir(SHARED_MEMORY))


class Training:
    """A run with two loading processes, as a terminal starts it: a group of its own."""

    def __init__(self, root: Path, workdir: Path, compiled: Path) -> None:
        self.latest, self.output = workdir / "checkpoints" / "latest", workdir.with_suffix(".err")
        self._shared = shared_memory()
        keys = ("data.workers=2", "training.epochs=400", "training.validate_every_epochs=400")
        arguments = command(root, workdir, *(f"--config.{key}" for key in keys))
        code = (
            "import sys; from astra_jax.cli import main; from helpers.faults import COMPONENTS\n"
            f"sys.exit(main({arguments!r}, COMPONENTS))"
        )
        with self.output.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-c", code],
                env=environment(compiled),
                stdout=subprocess.DEVNULL,
                stderr=output,
                start_new_session=True,
            )

    def said(self) -> str:
        return self.output.read_text().replace("\r", "\n")

    def wait_for(self, happened, seconds: float = 100.0) -> None:
        deadline = time.monotonic() + seconds
        while not happened():
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.02)

    def loads(self) -> bool:
        """Whether its workers have started, not long ago: they are still importing."""
        return sum(b"spawn_main" in line for line in self._living()) == 2

    def tell_all(self, number: int) -> None:
        os.killpg(self.process.pid, number)

    def ended(self) -> list[str]:
        """What it said, line by line; nothing of it is left, no process and no shared memory."""
        self.process.wait(100)
        self.wait_for(lambda: not self._living())
        # Other tests that run beside this one have some of their own, for a while.
        left = shared_memory() - self._shared
        self.wait_for(lambda: not left & shared_memory())
        return [line for line in self.said().splitlines() if line.strip()]

    def _living(self) -> list[bytes]:
        """The command lines of its group's processes that haven't ended."""
        lines = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):  # it has ended meanwhile
                state, _, group, *_ = stat.read_text().rpartition(") ")[2].split()
                if int(group) == self.process.pid and state not in "ZX":
                    lines.append(stat.with_name("cmdline").read_bytes())
        return lines


@pytest.fixture
def training(tmp_path, compiled_folder):
    started = Training(write_data(tmp_path / "data"), tmp_path / "run", compiled_folder)
    yield started
    if started.process.poll() is None:
        started.tell_all(signal.SIGKILL)
        started.process.wait()


linux = pytest.mark.skipif(not SHARED_MEMORY.is_dir(), reason="looks at Linux's /dev and /proc")


# Three processes that import JAX, and a run: seconds.
@linux
def test_ctrl_c_leaves_its_closing_line_and_nothing_else(training):
    training.wait_for(lambda: list(training.latest.glob("[0-9]*[0-9]")))
    training.tell_all(signal.SIGINT)
    start, *progress, closing = training.ended()
    assert training.process.returncode == 130
    assert closing.startswith("ended by SIGINT after step ") and "same command" in closing
    others = [line for line in progress if "/1200 [" not in line]
    assert "compiling" in start and len(others) == 1 and others[0].startswith("told to end")


@linux
@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_a_signal_while_the_workers_start_leaves_its_closing_line(training, number):
    training.wait_for(training.loads)
    training.tell_all(number)
    *_, progress, closing = training.ended()
    assert training.process.returncode == 128 + number
    assert closing.startswith(f"ended by {number.name}: ") and "0/1200" in progress


@linux
@pytest.mark.slow
def test_a_second_ctrl_c_leaves_nothing_either(training):
    training.wait_for(lambda: list(training.latest.glob("[0-9]*[0-9]")))
    for _ in range(2):
        training.tell_all(signal.SIGINT)
        time.sleep(0.05)
    closing = training.ended()[-1]
    assert training.process.returncode == 130 and closing.startswith("ended by SIGINT")
