"""Checkpoints: what a kill between two writes would leave, and damaged ones."""

import contextlib
import os
import shutil
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.kills import arrays_of
from jax.sharding import SingleDeviceSharding

from astra_jax.errors import UserError
from astra_jax.runs.folder import RunFolder
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
    newest = written / "checkpoints" / "latest" / "2"
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
