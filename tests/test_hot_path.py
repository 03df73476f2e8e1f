"""The loop never waits for the step that is under way, nor moves what nobody asked it to move."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from helpers.runs import lines, with_scores
from helpers.tiny import tiny_config, write_data

from astra_jax import runs
from astra_jax.runs.components import Components
from astra_jax.training.loop import Trainer
from astra_jax.training.state import StepValues


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


def train(root: Path, workdir: Path, components: Components) -> list[dict[str, Any]]:
    """Three epochs of three steps, a line for each step; the lines of its metrics."""
    config = tiny_config(root)
    config.training.update(log_every_steps=1, average_decay=0.9)
    runs.train(config, workdir, components=components)
    return lines(workdir / "metrics.jsonl")


def with_trainer(trainer: type[Trainer]) -> Components:
    """Components of a run that this kind of trainer takes."""
    return dataclasses.replace(with_scores([0.1] * 3), make_trainer=trainer)


class Guarded(Trainer):
    """Refuses every transfer but those that are asked for by name."""

    def _train_epoch(self, epoch: int, batches: Iterator[dict[str, Any]]) -> None:
        with jax.transfer_guard("disallow"):
            super()._train_epoch(epoch, batches)


def test_the_loop_moves_nothing_that_it_was_not_asked_to(root, tmp_path):
    assert len(train(root, tmp_path, with_trainer(Guarded))) == 9 + 3


def test_a_transfer_that_nobody_asked_for_is_refused(root, tmp_path):
    """The test above can fail."""

    def put(batch: dict[str, Any], sharding: Any) -> dict[str, Any]:
        del sharding
        return batch  # NumPy's arrays: the step would take them to the devices by itself

    components = dataclasses.replace(with_trainer(Guarded), put_batch=put)
    with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
        train(root, tmp_path, components)


class LateArray:
    """An array of step `step` that may be fetched once `taken` steps were dispatched."""

    def __init__(self, array: Any, step: int, steps: "Steps") -> None:
        self._array, self._step, self._steps = array, step, steps

    def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray:
        last_of_epoch = self._step % 3 == 0
        if self._steps.dispatched == self._step and not last_of_epoch:
            raise AssertionError(f"step {self._step} is waited for: the devices lie idle")
        return np.asarray(self._array)

    def __iter__(self) -> Any:
        return iter(self.__array__())

    def __getitem__(self, index: Any) -> Any:
        return self.__array__()[index]

    def __float__(self) -> float:
        return float(self.__array__())

    __int__ = __bool__ = __float__  # type: ignore[assignment]

    def block_until_ready(self) -> "LateArray":
        """By whom the end of a step is looked out for beside the loop."""
        return self


class Steps:
    """A step whose values can't be fetched before the next step was dispatched."""

    def __init__(self, step: Any) -> None:
        self._step, self.dispatched = step, 0

    def __call__(self, state: Any, batch: Any) -> tuple[Any, StepValues]:
        state, values = self._step(state, batch)
        self.dispatched += 1
        return state, jax.tree.map(lambda array: LateArray(array, self.dispatched, self), values)

    def lower(self, state: Any, batch: Any) -> Any:
        return self._step.lower(state, batch)


class Late(Guarded):
    """Its steps' values come late."""

    def __init__(self, step: Any, **parts: Any) -> None:
        super().__init__(step=Steps(step), **parts)


def test_no_value_of_a_step_is_fetched_before_the_next_one_is_dispatched(root, tmp_path):
    found = train(root, tmp_path, with_trainer(Late))
    assert [line["step"] for line in found if "epoch" not in line] == [*range(1, 10)]
    assert all(np.isfinite([line["loss"], line["gradient_norm"]]).all() for line in found[:3])


class Hasty(Late):
    """Looks at the loss of the step that it has just dispatched."""

    def _train_epoch(self, epoch: int, batches: Iterator[dict[str, Any]]) -> None:
        step = self.step

        def hasty(state: Any, batch: Any) -> Any:
            state, values = step(state, batch)
            float(jax.device_get(values).losses[0])
            return state, values

        self.step = hasty  # type: ignore[assignment]
        super()._train_epoch(epoch, batches)


def test_a_value_that_is_fetched_too_early_is_noticed(root, tmp_path):
    """The test above can fail."""
    with pytest.raises(AssertionError, match="step 1 is waited for"):
        train(root, tmp_path, with_trainer(Hasty))
