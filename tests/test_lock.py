"""Two runs in one folder: the second is refused, and what a dead one left is taken over."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.faults import command
from helpers.tiny import write_data

from astra_jax.cli.main import main
from astra_jax.errors import UserError
from astra_jax.runs.folder import RunFolder
from astra_jax.runs.lock import lock_folder

HERE = Path(__file__).parent


def test_a_second_run_in_a_folder_stops_and_names_the_first(tmp_path, capsys):
    root, workdir = write_data(tmp_path / "data"), tmp_path / "run"
    with lock_folder(RunFolder(workdir)):
        assert main(command(root, workdir)) == 2
        told = json.loads((workdir / "run.lock").read_text())
    (line,) = capsys.readouterr().err.splitlines()
    assert told["process"] == os.getpid()
    for word in (str(workdir), told["host"], f"process {os.getpid()}", told["started"]):
        assert word in line
    assert not workdir.exists()  # made for the lock, and nothing was put into it


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path, caplog):
    holding = (
        "import sys, time; from pathlib import Path\n"
        "from astra_jax.runs.folder import RunFolder\n"
        "from astra_jax.runs.lock import lock_folder\n"
        "with lock_folder(RunFolder(Path(sys.argv[1]))): print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", holding, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(HERE.parent)},
        stdout=subprocess.PIPE,
        text=True,
    )
    folder = RunFolder(tmp_path)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    with pytest.raises(UserError, match=f"process {process.pid}"), lock_folder(folder):
        pass
    process.kill()
    process.communicate()
    assert (tmp_path / "run.lock").exists()
    with lock_folder(folder):
        assert f"process {process.pid}, since" in caplog.text and "taken over" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_a_fault_gives_the_lock_back(tmp_path):
    with pytest.raises(RuntimeError), lock_folder(RunFolder(tmp_path / "new" / "run")):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
