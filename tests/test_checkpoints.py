"""Checkpoints: what a kill between two writes would leave."""

import os
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from kills import arrays_of

from astra_jax.training.checkpoints import Checkpoints


@pytest.fixture
def renamed(monkeypatch) -> list[str]:
    """The checkpoints in the order in which they became complete; best ones take long."""
    rename, order = os.rename, []

    def slow_rename(source, target, **kwargs):
        if Path(source).parent.name == "best":
            time.sleep(1)
        rename(source, target, **kwargs)
        if Path(target).parent.name in ("best", "latest"):
            order.append("/".join(Path(target).parts[-2:]))

    monkeypatch.setattr(os, "rename", slow_rename)
    return order


def test_the_best_checkpoint_is_complete_before_the_latest_that_tells_of_it(tmp_path, renamed):
    checkpoints, state = Checkpoints(tmp_path), {"weights": jnp.arange(3.0)}
    checkpoints.save_best(3, state)
    checkpoints.save_latest(3, state, {"best_epoch": 1})
    checkpoints.close()
    assert renamed == ["best/3", "latest/3"]


def test_a_best_checkpoint_that_is_there_is_not_deleted_to_be_written_again(tmp_path, renamed):
    for _ in range(2):
        checkpoints = Checkpoints(tmp_path)
        checkpoints.save_best(3, {"weights": jnp.arange(3.0)})
        checkpoints.close()
    assert renamed == ["best/3"]


def test_a_best_checkpoint_of_a_later_step_makes_way(tmp_path):
    for step in (6, 3):
        checkpoints = Checkpoints(tmp_path)
        checkpoints.save_best(step, {"weights": jnp.full(3, float(step))})
        checkpoints.close()
    folders = list((tmp_path / "checkpoints" / "best").iterdir())
    assert [folder.name for folder in folders] == ["3"]
    (weights,) = arrays_of(folders[0] / "params").values()
    np.testing.assert_array_equal(weights, [3.0, 3.0, 3.0])
