"""A run that is killed and goes on, and one in two processes, end as the one that ran through."""

import json
import os
import random
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from jax.sharding import SingleDeviceSharding
from tiny import write_data

from astra_jax.cli import main

pytestmark = pytest.mark.usefixtures("compile_once")
HERE = Path(__file__).parent

# Everything that draws numbers, and checkpoints inside the epochs of three steps.
EVERYTHING_RANDOM = [
    "--config.mixup.kind=balanced",
    "--config.model.dropout=0.1",
    "--config.model.embedding_dropout=0.2",
    "--config.model.head_dropout=0.2",
    "--config.model.temporal_dropout=0.5",
    "--config.model.temporal_switch=0.3",
    "--config.training.checkpoint_every_steps=2",
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


def arguments(root: Path, workdir: Path, *more: str) -> list[str]:
    config = ["--config", str(HERE / "tiny.py"), f"--config.data.root={root}"]
    return ["train", *config, "--workdir", str(workdir), *more]


def start(
    command: Sequence[str], compiled: Path, devices: int = 8, **variables: str
) -> subprocess.Popen:
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(compiled),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
        "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)]),
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
    }
    return subprocess.Popen(
        [sys.executable, *command],
        env=environment | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen, code: int = 0) -> str:
    try:
        out, err = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == code, err
    return out


def state_after(workdir: Path, step: int) -> dict[str, np.ndarray]:
    """Every array of a latest checkpoint: parameters, optimiser, sums, step."""
    with ocp.StandardCheckpointer() as checkpointer:
        folder = workdir / "checkpoints" / "latest" / str(step) / "state"
        # Where the arrays lay is another matter: those of two processes are read here by one.
        shapes = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(
                leaf.shape, leaf.dtype, sharding=SingleDeviceSharding(jax.devices()[0])
            ),
            checkpointer.metadata(folder.absolute()).item_metadata.tree,
        )
        state = checkpointer.restore(folder.absolute(), shapes)
    leaves = jax.tree.leaves_with_path(state)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def epochs(workdir: Path) -> list[dict]:
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert all(row.pop("seconds") > 0 for row in rows)
    return rows


def test_a_killed_run_ends_bit_by_bit_as_the_one_that_ran_through(root, tmp_path, compiled_folder):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert main(arguments(root, whole, *EVERYTHING_RANDOM)) == 0
    latest = killed / "checkpoints" / "latest"
    # Of nine steps, three an epoch, with checkpoints at 2, 3, 4, 6 and 8: killed at a random step
    # inside an epoch when its last checkpoint is complete; killed again some steps after that
    # one, whatever is half-written then; then to the end.
    first, checkpoint = random.choice([(2, 2), (4, 4), (5, 4), (8, 8)])
    second = random.randint(1, 8 - checkpoint) if checkpoint < 8 else 0
    print(f"killed before step {first}, then {second} step(s) behind {checkpoint}")
    for steps, awaited in ((first, checkpoint), (second, 0)):
        driver = [str(HERE / "stopped_run.py"), str(steps), str(awaited)]
        command = [*driver, *arguments(root, killed, *EVERYTHING_RANDOM)]
        ended(start(command, compiled_folder), code=9)
        if awaited:
            assert max(int(path.name) for path in latest.glob("[0-9]")) == checkpoint
        assert not (killed / "summary.json").exists()
    assert main(arguments(root, killed, *EVERYTHING_RANDOM)) == 0
    expected, found = state_after(whole, 9), state_after(killed, 9)
    assert expected.keys() == found.keys() and len(expected) > 100
    assert any("nu_max" in name for name in expected)
    assert [name for name in expected if expected[name].tobytes() != found[name].tobytes()] == []
    assert epochs(killed) == epochs(whole) and len(epochs(whole)) == 3
    starts = json.loads((killed / "provenance.json").read_text())["starts"]
    assert [start["step"] for start in starts][:2] == [0, checkpoint] and len(starts) == 3
    assert len({start["data"] for start in starts}) == 1
    # A model that dropout and mixing passed by would make the comparison idle.
    assert epochs(whole)[0]["loss"] > 0


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
        with socket.socket() as free:
            free.bind(("localhost", 0))
            address = f"localhost:{free.getsockname()[1]}"
        processes = [
            start(
                [str(HERE.parent / f"{script}.py"), *command, "--distributed"],
                compiled_folder,
                devices=4,
                JAX_COORDINATOR_ADDRESS=address,
                JAX_NUM_PROCESSES="2",
                JAX_PROCESS_ID=str(index),
            )
            for index in range(2)
        ]
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
