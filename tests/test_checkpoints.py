"""Checkpoints: what a kill between two writes would leave, and damaged ones."""

import contextlib
import dataclasses
import errno
import gc
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from helpers.kills import arrays_of
from jax.sharding import SingleDeviceSharding
from orbax.checkpoint import CheckpointManager

from astra_jax.cli import process
from astra_jax.errors import UserError
from astra_jax.runs.folder import RunFolder
from astra_jax.training import checkpoint_faults
from astra_jax.training.checkpoint_faults import DamagedCheckpoint
from astra_jax.training.checkpoint_files import has_latest, read_progress, steps_in
from astra_jax.training.checkpoints import Checkpoints
from astra_jax.training.state import Progress

# Threads of TensorStore, when a file is damaged; `cli.process.messages` leaves it out.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.usefixtures("orbax_may_complain"),
]


def checkpoints_of(workdir: Path, read_only: bool = False) -> Checkpoints:
    run = RunFolder(workdir)
    return Checkpoints(run.latest_checkpoints, run.best_checkpoints, read_only)


@pytest.fixture
def renamed(monkeypatch) -> list[str]:
    """The checkpoints in the order in which they became complete; best ones take long."""
    rename, order = os.rename, []

    def slow_rename(source, target, **kwargs):
        if Path(source).parent.name == "best":
            time.sleep(0.5)
        rename(source, target, **kwargs)
        if Path(target).parent.name in ("best", "latest"):
            order.append("/".join(Path(target).parts[-2:]))

    monkeypatch.setattr(os, "rename", slow_rename)
    return order


def test_the_best_checkpoint_is_complete_before_the_latest_that_tells_of_it(tmp_path, renamed):
    checkpoints, state = checkpoints_of(tmp_path), {"weights": jnp.arange(3.0)}
    checkpoints.save_best(3, state)
    checkpoints.save_latest(3, state, Progress(best_epoch=1))
    checkpoints.close()
    assert renamed == ["best/3", "latest/3"]


def test_a_best_checkpoint_that_is_there_is_not_deleted_to_be_written_again(tmp_path, renamed):
    for _ in range(2):
        checkpoints = checkpoints_of(tmp_path)
        checkpoints.save_best(3, {"weights": jnp.arange(3.0)})
        checkpoints.close()
    assert renamed == ["best/3"]


def test_a_best_checkpoint_of_a_later_step_makes_way(tmp_path):
    for step in (6, 3):
        checkpoints = checkpoints_of(tmp_path)
        checkpoints.save_best(step, {"weights": jnp.full(3, float(step))})
        checkpoints.close()
    folders = list((tmp_path / "checkpoints" / "best").iterdir())
    assert [folder.name for folder in folders] == ["3"]
    (weights,) = arrays_of(folders[0] / "params").values()
    np.testing.assert_array_equal(weights, [3.0, 3.0, 3.0])


def test_the_best_checkpoint_stays_until_a_complete_latest_one_tells_of_the_next(tmp_path):
    best = tmp_path / "checkpoints" / "best"
    checkpoints = checkpoints_of(tmp_path)
    checkpoints.save_best(3, state_of(3))
    checkpoints.save_latest(3, state_of(3), Progress(best_epoch=1))
    checkpoints.save_best(6, state_of(6))
    checkpoints.wait()
    assert steps_in(best) == [3, 6]
    checkpoints.save_latest(6, state_of(6), Progress(best_epoch=2))
    checkpoints.wait()
    assert steps_in(best) == [6]
    checkpoints.close()


def test_a_run_that_goes_on_has_the_best_that_it_was_told_of(tmp_path):
    """Killed when the best of step 6 was complete, and no latest one that tells of it."""
    best = tmp_path / "checkpoints" / "best"
    for step in (3, 6):
        with contextlib.closing(checkpoints_of(tmp_path)) as checkpoints:
            checkpoints.save_best(step, state_of(step))
    assert steps_in(best) == [3, 6]
    with contextlib.closing(checkpoints_of(tmp_path)) as checkpoints:
        checkpoints.keep_best(9)  # gone: what is there is better than none
        assert steps_in(best) == [3, 6]
        checkpoints.keep_best(3)
        assert steps_in(best) == [3] and len(list(best.iterdir())) == 1
        assert checkpoints.restore_best(abstract(state_of(0)))[0] == 3


# A step that is saved again


def test_a_step_that_is_there_gets_other_progress_and_is_never_deleted(tmp_path, monkeypatch):
    checkpoints = checkpoints_of(tmp_path)
    checkpoints.save_latest(3, state_of(3), Progress())
    checkpoints.wait()
    deleted: list[Any] = []
    monkeypatch.setattr(CheckpointManager, "delete", lambda *args: deleted.append(args))
    monkeypatch.setattr(shutil, "rmtree", lambda *args, **kwargs: deleted.append(args))
    checkpoints.save_best(3, state_of(3))
    checkpoints.save_latest(3, state_of(3), Progress(epochs=1, best_epoch=1))
    checkpoints.wait()
    assert deleted == [] and steps_in(tmp_path / "checkpoints" / "latest") == [3]
    state, progress = checkpoints.restore_latest(abstract(state_of(0)))
    assert progress == Progress(epochs=1, best_epoch=1)
    np.testing.assert_array_equal(state["weights"], state_of(3)["weights"])
    checkpoints.close()
    # As Orbax writes it, so that the version before reads it.
    metadata = tmp_path / "checkpoints" / "latest" / "3" / "progress" / "metadata"
    assert json.loads(metadata.read_text()) == dataclasses.asdict(progress)
    assert not list(metadata.parent.glob(".*"))


SAVED_TWICE = """
import os, shutil, signal, sys
from pathlib import Path
import numpy as np
from astra_jax.runs.folder import RunFolder
from astra_jax.training.checkpoints import Checkpoints
from astra_jax.training.state import Progress
run, state = RunFolder(Path(sys.argv[1])), {"weights": np.arange(3.0)}
checkpoints = Checkpoints(run.latest_checkpoints, run.best_checkpoints)
checkpoints.save_latest(3, state, Progress())
checkpoints.wait()
def then_killed(act):
    def killed(*args, **kwargs):
        act(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)
    return killed
shutil.rmtree = then_killed(shutil.rmtree)
if sys.argv[2] == "before":
    os.replace = then_killed(lambda *args: None)
else:
    os.replace = then_killed(os.replace)
checkpoints.save_latest(3, state, Progress(epochs=1))
checkpoints.wait()
"""


@pytest.mark.parametrize(("moment", "epochs"), [("before", 0), ("after", 1)])
def test_a_kill_while_a_step_is_saved_again_leaves_it(tmp_path, moment, epochs):
    done = subprocess.run(
        [sys.executable, "-c", SAVED_TWICE, str(tmp_path), moment],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    with contextlib.closing(checkpoints_of(tmp_path)) as checkpoints:
        state, progress = checkpoints.restore_latest(abstract({"weights": np.zeros(3)}))
    assert progress == Progress(epochs=epochs) and state["weights"].tolist() == [0, 1, 2]
    folder = tmp_path / "checkpoints" / "latest" / "3" / "progress"
    assert (folder / "metadata").exists() and not list(folder.glob(".*"))  # cleaned


# Damage


def abstract(tree: dict) -> dict:
    place = SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), tree
    )


def state_of(step: int) -> dict:
    return {"weights": jnp.full((50, 3), float(step)), "layer": {"bias": jnp.arange(5.0) + step}}


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """A folder with the latest checkpoints of steps 1 and 2 and the best of step 2."""
    folder = tmp_path_factory.mktemp("written")
    checkpoints = checkpoints_of(folder)
    for step in (1, 2):
        checkpoints.save_latest(step, state_of(step), Progress(epochs=step))
    checkpoints.save_best(2, state_of(2))
    checkpoints.close()
    return folder


def damage(file: Path, how: str) -> None:
    if how == "gone":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


@pytest.mark.parametrize("how", ["gone", "half"])
def test_whatever_file_of_the_newest_is_damaged_what_is_restored_is_whole(
    written, tmp_path, caplog, how
):
    newest_name = Path("checkpoints", "latest", "2")
    newest = written / newest_name
    files = sorted(path.relative_to(written) for path in newest.rglob("*") if path.is_file())
    fallen_back = []
    for number, file in enumerate(files):
        folder = tmp_path / str(number)
        shutil.copytree(written, folder)
        damage(folder / file, how)
        caplog.clear()
        with contextlib.closing(checkpoints_of(folder)) as checkpoints:
            state, progress = checkpoints.restore_latest(abstract(state_of(0)))
            steps = checkpoints.latest_step()
        step = progress.epochs
        for name, value in jax.tree.leaves_with_path(state_of(step)):
            np.testing.assert_array_equal(dict(jax.tree.leaves_with_path(state))[name], value)
        assert steps == step  # the damaged one makes way for its successor
        kept = folder / "checkpoints" / "latest" / ("2.damaged" if step == 1 else "2")
        whole, left = ({p.relative_to(of) for p in of.rglob("*")} for of in (newest, kept))
        assert left == whole - ({file.relative_to(newest_name)} if how == "gone" else set())
        assert ("latest/2: the checkpoint is damaged" in caplog.text) == (step == 1)
        fallen_back += [file] if step == 1 else []
    assert len(fallen_back) >= 4


def test_without_a_whole_checkpoint_the_newest_is_named(written, tmp_path):
    shutil.copytree(written, tmp_path / "run")
    for step in ("1", "2"):
        damage(tmp_path / "run" / "checkpoints" / "latest" / step / "state" / "_METADATA", "half")
    with contextlib.closing(checkpoints_of(tmp_path / "run")) as checkpoints:
        with pytest.raises(UserError, match="latest/2: the checkpoint is damaged") as error:
            checkpoints.restore_latest(abstract(state_of(0)))
        assert "\n" not in str(error.value)
        assert checkpoints.latest_step() == 2  # nothing is deleted where nothing takes its place


def test_a_damaged_best_checkpoint_is_named(written, tmp_path):
    shutil.copytree(written, tmp_path / "run")
    data = tmp_path / "run" / "checkpoints" / "best" / "2" / "params" / "d"
    for file in data.iterdir():
        damage(file, "half")
    with (
        contextlib.closing(checkpoints_of(tmp_path / "run", read_only=True)) as checkpoints,
        pytest.raises(UserError, match="best/2: the checkpoint is damaged") as error,
    ):
        checkpoints.restore_best(abstract(state_of(0)))
    assert "\n" not in str(error.value)


def test_what_is_said_of_damage_names_the_fault(written, tmp_path):
    shutil.copytree(written, tmp_path / "run")
    damage(tmp_path / "run/checkpoints/best/2/params/manifest.ocdbt", "half")
    with (
        contextlib.closing(checkpoints_of(tmp_path / "run", read_only=True)) as checkpoints,
        pytest.raises(UserError, match=r"best/2: the checkpoint is damaged \(DATA_LOSS: "),
    ):
        checkpoints.restore_best(abstract(state_of(0)))


def test_what_is_said_of_damage_is_the_fault_and_not_how_orbax_opened_the_file():
    def read():
        try:
            raise ValueError("NOT_FOUND: Error reading local file")
        except ValueError as error:
            raise Exception("at (0,). See full TensorStore details: <TensorStore({...") from error

    with pytest.raises(UserError, match=r"^x: .* \(NOT_FOUND: Error reading local file\): restore"):
        checkpoint_faults.read_patiently("x", read)


def test_what_passes_is_no_damage_where_the_list_of_arrays_is_read(written, tmp_path, monkeypatch):
    """Orbax's checkpointers take every ValueError, as TensorStore's are, for a list that is not
    there: a file server away for a moment would have cost the newest checkpoint.
    """
    shutil.copytree(written, tmp_path / "run")
    read, fails = ocp.StandardCheckpointHandler.metadata, iter([True])

    def metadata(self, directory):
        if next(fails, False):
            raise ValueError(f"UNKNOWN: Error reading local file: {os.strerror(errno.EIO)}")
        return read(self, directory)

    monkeypatch.setattr(ocp.StandardCheckpointHandler, "metadata", metadata)
    monkeypatch.setattr(checkpoint_faults, "WAITS_SECONDS", (0.01,))
    with contextlib.closing(checkpoints_of(tmp_path / "run")) as checkpoints:
        _, progress = checkpoints.restore_latest(abstract(state_of(0)))
        assert progress.epochs == 2 and checkpoints.latest_step() == 2


def test_what_a_killed_run_left_unfinished_is_taken_away_at_once(written, tmp_path):
    shutil.copytree(written, tmp_path / "run")
    left = tmp_path / "run" / "checkpoints" / "latest" / "3.orbax-checkpoint-tmp"
    left.mkdir()
    (left / "part").write_text("half")
    checkpoints_of(tmp_path / "run", read_only=True).close()
    assert left.exists()  # a training may be writing it
    checkpoints_of(tmp_path / "run").close()
    assert not left.exists()


@pytest.mark.parametrize("content", ["[]", "{}", '{"epochs": 2, "new": 1}', "null"])
def test_progress_of_another_kind_is_damage(written, tmp_path, caplog, content):
    shutil.copytree(written, tmp_path / "run")
    (tmp_path / "run/checkpoints/latest/2/progress/metadata").write_text(content)
    with contextlib.closing(checkpoints_of(tmp_path / "run")) as checkpoints:
        _, progress = checkpoints.restore_latest(abstract(state_of(0)))
    assert progress.epochs == 1 and "latest/2: the checkpoint is damaged" in caplog.text


def test_what_is_put_aside_is_no_checkpoint_and_takes_no_other_s_name(written, tmp_path, caplog):
    folder = RunFolder(tmp_path / "run")
    shutil.copytree(written, folder.path)
    latest = folder.latest_checkpoints
    for number in ("", ".2", ".3"):
        # As if the run had come to the same step again, and that was damaged as well.
        shutil.copytree(written / "checkpoints" / "latest" / "2", latest / "2", dirs_exist_ok=True)
        damage(latest / "2" / "state" / "_METADATA", "half")
        with contextlib.closing(checkpoints_of(folder.path)) as checkpoints:
            checkpoints.restore_latest(abstract(state_of(0)))
            assert checkpoints.latest_step() == 1
        assert caplog.messages[-1].endswith(f"kept as 2.damaged{number}, going on from step 1")
    assert steps_in(latest) == [1] and folder.latest_step() == 1
    shutil.rmtree(latest / "1")
    assert not has_latest(latest) and read_progress(latest) is None
    with contextlib.closing(checkpoints_of(folder.path)) as checkpoints:
        assert checkpoints.latest_step() is None
        checkpoints.save_latest(2, state_of(2), Progress(epochs=2))
    assert sorted(path.name for path in latest.iterdir()) == [
        *("2", "2.damaged", "2.damaged.2", "2.damaged.3")
    ]


def test_a_newest_checkpoint_of_another_model_is_neither_damaged_nor_passed_over(tmp_path):
    checkpoints = checkpoints_of(tmp_path)
    checkpoints.save_latest(1, state_of(1), Progress())
    checkpoints.save_latest(2, {"other": jnp.arange(3.0)}, Progress())
    checkpoints.wait()
    with pytest.raises(UserError, match="of another model"):
        checkpoints.restore_latest(abstract(state_of(0)))
    checkpoints.close()
    assert steps_in(tmp_path / "checkpoints" / "latest") == [1, 2]


def test_a_state_that_an_earlier_version_has_laid_out_is_told_from_another_model(tmp_path):
    """The moments were a tree as the parameters are, and there was no key."""
    params, packed = state_of(1), [jnp.zeros(155)]
    tree = {"params": params, "optimizer": jax.tree.map(jnp.zeros_like, params)}
    ours = abstract({"params": params, "optimizer": packed, "key": jnp.zeros(2)})
    checkpoints = checkpoints_of(tmp_path)
    checkpoints.save_latest(1, tree, Progress())
    checkpoints.wait()
    with pytest.raises(UserError, match=r"another version of astra_jax \(key is absent"):
        checkpoints.restore_latest(ours)
    larger = ours | {"params": abstract(params | {"weights": jnp.zeros((60, 3))})}
    with pytest.raises(UserError, match=r"another model \(params/weights is \(50, 3\) there"):
        checkpoints.restore_latest(larger)
    checkpoints.close()
    assert steps_in(tmp_path / "checkpoints" / "latest") == [1]


# Errors that pass


@pytest.fixture
def waits(monkeypatch) -> list[float]:
    """How long it was waited before each new try, without waiting."""
    found: list[float] = []
    monkeypatch.setattr(checkpoint_faults.time, "sleep", found.append)
    return found


def failing(monkeypatch, errors: list[Exception]) -> None:
    """Reading a checkpoint raises these, one a try, before it works."""
    restore = CheckpointManager.restore

    def failing_restore(*args, **kwargs):
        if errors:
            raise errors.pop(0)
        return restore(*args, **kwargs)

    monkeypatch.setattr(CheckpointManager, "restore", failing_restore)


def caused_by(cause: Exception) -> Exception:
    error = RuntimeError("a task failed")
    error.__cause__ = cause
    return error


PASSING = [
    OSError(errno.EIO, "no matter which words"),
    OSError(errno.ESTALE, "x"),
    OSError(errno.ETIMEDOUT, "x"),
    OSError(errno.EAGAIN, "x"),
    OSError(errno.EACCES, "x"),
    OSError(errno.EMFILE, "x"),
    OSError(errno.ENOMEM, "x"),
    caused_by(OSError(errno.EIO, "x")),
    caused_by(ValueError("UNAVAILABLE: server")),
    ValueError("Error opening file: Input/output error [file='/a']"),
    ValueError("Error reading: OS error 116: Stale file handle"),
    RuntimeError("read timed out"),
    TimeoutError(),
    ConnectionResetError(),
]


@pytest.mark.parametrize("error", PASSING, ids=repr)
def test_what_may_pass_is_tried_again_and_is_no_damage(
    written, tmp_path, monkeypatch, waits, caplog, error
):
    shutil.copytree(written, tmp_path / "run")
    with contextlib.closing(checkpoints_of(tmp_path / "run")) as checkpoints:
        failing(monkeypatch, [error, error])
        _, progress = checkpoints.restore_latest(abstract(state_of(0)))
        assert progress.epochs == 2 and waits == [1.0, 3.0]
        failing(monkeypatch, [error] * 3)
        assert checkpoints.restore_best(abstract(state_of(0)))[0] == 2
        assert waits[2:] == [1.0, 3.0, 10.0]
        ours = [r.getMessage() for r in caplog.records if r.name.startswith("astra_jax")]
        assert len(ours) == 5 and all("trying again" in line for line in ours)
        for read in (checkpoints.restore_latest, checkpoints.restore_best):
            failing(monkeypatch, [error] * 4)
            with pytest.raises(UserError, match="cannot be read now .*, 4 tries.*") as stopped:
                read(abstract(state_of(0)))
            assert "\n" not in str(stopped.value) and "nothing was changed" in str(stopped.value)
    assert steps_in(tmp_path / "run" / "checkpoints" / "latest") == [1, 2]
    assert len(list((tmp_path / "run" / "checkpoints" / "latest").iterdir())) == 2


def test_words_of_the_path_are_no_reason(written, tmp_path, monkeypatch, waits):
    """A damaged checkpoint is damaged wherever it lies."""
    shutil.copytree(written, run := tmp_path / "timeout" / "UNAVAILABLE")
    best = run / "checkpoints" / "best" / "2"
    failing(monkeypatch, [ValueError(f"DATA_LOSS: Error reading {best}/params/d/0: corrupt")])
    refused = pytest.raises(DamagedCheckpoint, match="UNAVAILABLE/checkpoints/best/2: .* damaged")
    with contextlib.closing(checkpoints_of(run)) as checkpoints, refused:
        checkpoints.restore_best(abstract(state_of(0)))
    assert waits == []


def test_too_many_open_files_are_no_damage(written, tmp_path, monkeypatch, waits):
    """As the system itself says it, by whatever reads."""
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)  # threads that could not begin
    shutil.copytree(written, tmp_path / "run")
    with contextlib.closing(checkpoints_of(tmp_path / "run")) as checkpoints:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        taken = [os.open("/dev/null", os.O_RDONLY)]
        resource.setrlimit(resource.RLIMIT_NOFILE, (taken[0] + 1, hard))
        try:
            with pytest.raises(UserError, match="Too many open files"):
                checkpoints.restore_latest(abstract(state_of(0)))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            os.close(taken[0])
    assert len(waits) == 3
    assert steps_in(tmp_path / "run" / "checkpoints" / "latest") == [1, 2]


def test_memory_that_ran_out_is_not_the_file_s_fault(written, tmp_path, monkeypatch, waits):
    shutil.copytree(written, tmp_path / "run")
    with contextlib.closing(checkpoints_of(tmp_path / "run")) as checkpoints:
        failing(monkeypatch, [caused_by(MemoryError())])
        with pytest.raises(MemoryError):
            checkpoints.restore_latest(abstract(state_of(0)))
    assert waits == [] and steps_in(tmp_path / "run" / "checkpoints" / "latest") == [1, 2]


def test_progress_is_read_patiently_too(written, monkeypatch, waits):
    latest, read = written / "checkpoints" / "latest", Path.read_text
    errors = [OSError(errno.ESTALE, "Stale file handle")]

    def read_text(path: Path, *args, **kwargs) -> str:
        if errors:
            raise errors.pop()
        return read(path, *args, **kwargs)

    monkeypatch.setattr(Path, "read_text", read_text)
    assert read_progress(latest) == (2, Progress(epochs=2)) and waits == [1.0]


def test_what_a_failed_save_never_came_to_is_not_told():
    """The error is; Python would add a line for each file that was still to be written."""

    async def write():
        """Never awaited."""

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with process.messages():
            write()
            gc.collect()
    assert not told
