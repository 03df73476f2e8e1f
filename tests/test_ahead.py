"""A run's step is compiled once, while the rest of the run is made ready."""

import dataclasses
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import pytest
from helpers.compilations import counted_compilations
from helpers.faults import at_step
from helpers.linear import Linear
from helpers.matches import index, stream_config, write_match
from helpers.runs import LINEAR, steps_in
from helpers.tiny import tiny_config, write_data

from astra_jax import runs
from astra_jax.data.pipeline import TrainingStream
from astra_jax.devices import abstract_batch, batch_sharding, make_mesh, put_batch
from astra_jax.runs.components import Components

FRESH = Components(make_model=Linear)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


def test_the_step_is_compiled_once_a_run_and_so_is_that_of_a_run_that_goes_on(root, tmp_path):
    config = tiny_config(root)
    config.training.update(accumulation_steps=1, average_decay=0.5)
    stop = dataclasses.replace(FRESH, put_batch=at_step(5, _stop).put_batch)
    for components in (stop, FRESH):
        with counted_compilations() as compiled:
            if components is stop:
                with pytest.raises(_Stopped):
                    runs.train(config, tmp_path, components=components)
            else:
                runs.train(config, tmp_path, components=components)
        assert [name for name in compiled if "step" in name] == ["jit(step)"]
    assert steps_in(tmp_path / "checkpoints" / "latest")[-1] == 9


class _Stopped(Exception):
    pass


def _stop() -> None:
    raise _Stopped


@pytest.mark.parametrize("kind", ["balanced", "none"])
def test_the_step_is_compiled_for_batches_as_the_stream_s(tmp_path, kind):
    write_match(tmp_path, seconds=(600, 300))
    stream = TrainingStream(index(tmp_path), stream_config(mixup={"kind": kind}, batch_size=8))
    sharding = batch_sharding(make_mesh())
    (batch,) = stream.batches(0, 1)
    real = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding),
        put_batch(batch, sharding),
    )
    assert abstract_batch(stream.example(), sharding, stream.batch_size) == real


class Compiling:
    """A step, and its program, whose compilation does something before."""

    def __init__(self, step: Any, before: Callable[[], object]) -> None:
        self._step, self._before = step, before
        # What tells a jitted function (`jax.stages.Wrapped`).
        self.trace, self.eval_shape = step.trace, step.eval_shape

    def __call__(self, state: Any, batch: Any) -> Any:
        raise AssertionError("the compiled one is called")

    def lower(self, state: Any, batch: Any) -> Any:
        self._program = self._step.lower(state, batch)
        return self

    def compile(self) -> Any:
        self._before()
        return self._program.compile()

    @classmethod
    def components(cls, before: Callable[[], object], **others: Any) -> Components:
        def make_step(*args: Any, **more: Any) -> Any:
            return cls(LINEAR.make_train_step(*args, **more), before)

        return dataclasses.replace(LINEAR, make_train_step=make_step, **others)


def test_the_step_is_compiled_beside_what_comes_before_it(root, tmp_path):
    validating = threading.Event()
    waited: list[bool] = []

    def make_validate(*args: Any) -> Any:
        validating.set()
        return LINEAR.make_validate(*args)

    components = Compiling.components(
        lambda: waited.append(validating.wait(60)), make_validate=make_validate
    )
    runs.train(tiny_config(root), tmp_path, components=components)
    assert waited == [True]


def test_what_fails_while_compiling_is_raised_by_the_first_step(root, tmp_path):
    def fail() -> None:
        raise KeyError("wrong in the compiler")

    with pytest.raises(KeyError, match="wrong in the compiler"):
        runs.train(tiny_config(root), tmp_path, components=Compiling.components(fail))
    assert (tmp_path / "config.json").exists()  # all that comes before the first step is done


def test_a_step_that_is_no_jitted_function_is_called_as_it_is(root, tmp_path):
    class Counted:
        def __init__(self, *args: Any, **more: Any) -> None:
            self._step = LINEAR.make_train_step(*args, **more)

        def lower(self, state: Any, batch: Any) -> Any:
            raise AssertionError("its own call is what is wanted")

        def __call__(self, state: Any, batch: Any) -> Any:
            taken.append(batch)
            return self._step(state, batch)

    taken: list[Any] = []
    components = dataclasses.replace(LINEAR, make_train_step=Counted)
    assert runs.train(tiny_config(root), tmp_path, components=components)["steps"] == 9
    assert len(taken) == 9
