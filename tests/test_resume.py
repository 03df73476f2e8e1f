"""A run in two processes ends as one in a single process; of kills see test_kill.py."""

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from helpers.kills import arrays_of
from helpers.processes import ROOT, environment, flags
from helpers.tiny import write_data

from astra_jax.cli.main import main

pytestmark = pytest.mark.usefixtures("compile_once")
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


def arguments(root: Path, workdir: Path, *more: str) -> list[str]:
    config = ["--config", str(HERE / "helpers" / "tiny.py"), f"--config.data.root={root}"]
    return ["train", *config, "--workdir", str(workdir), *more]


def start(command: Sequence[str], compiled: Path, **variables: str) -> subprocess.Popen:
    """A process with four devices."""
    return subprocess.Popen(
        [sys.executable, *command],
        env=environment(compiled, XLA_FLAGS=flags(devices=4), **variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_two(script: str, command: Sequence[str], compiled: Path) -> list[subprocess.Popen]:
    """Two processes of one run, with four devices each."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    return [
        start(
            [str(ROOT / script), *command, "--distributed"],
            compiled,
            JAX_COORDINATOR_ADDRESS=address,
            JAX_NUM_PROCESSES="2",
            JAX_PROCESS_ID=str(index),
        )
        for index in range(2)
    ]


def ended(process: subprocess.Popen, code: int = 0) -> str:
    try:
        out, err = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == code, err
    return out


def state_after(workdir: Path, step: int) -> dict[str, np.ndarray]:
    """Every array of a latest checkpoint: parameters, optimiser, sums, step."""
    return arrays_of(workdir / "checkpoints" / "latest" / str(step) / "state")


def epochs(workdir: Path) -> list[dict]:
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert all(row.pop("seconds") > 0 for row in rows)
    return rows


@pytest.mark.slow
def test_two_processes_train_and_evaluate_as_one(root, tmp_path, compiled_folder):
    alone, together = tmp_path / "alone", tmp_path / "together"
    overrides = ["--config.mixup.kind=balanced", "--config.training.epochs=2"]
    assert main(arguments(root, alone, *overrides)) == 0
    evaluation = ["evaluate", "--split", "test", "--workdir"]
    assert main([*evaluation, str(alone), "--out", str(tmp_path / "out")]) == 0

    for script, *command in (
        arguments(root, together, *overrides),
        [*evaluation, str(together), "--out", str(tmp_path / "out2")],
    ):
        processes = start_two(f"{script}.py", command, compiled_folder)
        printed = [ended(process) for process in processes]
        # Gloo, which connects processes on CPUs, greets by itself.
        said = [[line for line in out.splitlines() if "[Gloo]" not in line] for out in printed]
        assert any("tight" in line for line in said[0]) and not said[1]

    summary = json.loads((together / "summary.json").read_text())
    assert (summary["devices"], summary["steps"]) == (8, 6)
    expected, found = state_after(alone, 6), state_after(together, 6)
    assert expected.keys() == found.keys()
    # Sums over devices are added in another order between processes: the last bits differ. The
    # gradient of a key's bias is zero but for them, and Adam makes steps of the full size of it.
    for name, values in expected.items():
        if "['params']" in name and name.endswith("['key']['bias']"):
            continue
        np.testing.assert_allclose(found[name], values, rtol=1e-5, atol=1e-5, err_msg=name)
    for ours, theirs in zip(epochs(together), epochs(alone), strict=True):
        assert ours["validation"] == pytest.approx(theirs["validation"], abs=1e-3)
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
    blocks = [json.loads((tmp_path / out / "metrics.json").read_text()) for out in ("out", "out2")]
    assert blocks[0]["loose"]["a_mAP"] == pytest.approx(blocks[1]["loose"]["a_mAP"], abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(("told", "number"), [(0, signal.SIGINT), (1, signal.SIGTERM)])
def test_a_signal_to_one_process_ends_both_after_the_same_step(
    root, tmp_path, compiled_folder, told, number
):
    latest = tmp_path / "run" / "checkpoints" / "latest"
    overrides = ["--config.training.epochs=40", "--config.training.validate_every_epochs=40"]
    _, *command = arguments(root, tmp_path / "run", *overrides)
    processes = start_two("train.py", command, compiled_folder)
    deadline = time.monotonic() + 200
    while not list(latest.glob("[0-9]*[0-9]")) and time.monotonic() < deadline:
        time.sleep(0.1)
    processes[told].send_signal(number)
    said = [process.communicate(timeout=200)[1] for process in processes]
    assert [process.returncode for process in processes] == [143, 143], said
    saved = max(int(path.name) for path in latest.glob("[0-9]*") if path.name.isdigit())
    assert f"ended by SIGTERM after step {saved}, saved" in said[0]
    assert 3 <= saved < 120
    for process in start_two("train.py", command, compiled_folder):
        ended(process)
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["steps"] == 120
    assert [row["step"] for row in epochs(tmp_path / "run")] == list(range(3, 121, 3))
