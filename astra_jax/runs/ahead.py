"""The step's program, compiled while the rest of a run is made ready."""

import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax

from astra_jax.data.pipeline import TrainingStream
from astra_jax.devices import abstract_batch, batch_sharding
from astra_jax.runs.components import Computation
from astra_jax.runs.waiting import says_what_takes_long
from astra_jax.training.state import StepValues, TrainState
from astra_jax.training.step import TrainStep


def compile_ahead(computation: Computation, stream: TrainingStream) -> TrainStep:
    """Begins to compile the run's step, for its state and for batches such as the stream's.

    Reads one clip and traces the step here and now; another thread compiles. What fails there is
    raised by the first step. A step that isn't a jitted function itself, but calls one, is returned
    as it is.
    """
    if not isinstance(computation.step, jax.stages.Wrapped):
        return computation.step
    sharding = batch_sharding(computation.mesh)
    batch = abstract_batch(stream.example(), sharding, stream.batch_size)
    return StepAhead(computation.step, computation.abstract_state(), batch)


class StepAhead:
    """A `TrainStep` that a thread of its own compiles, once; the first call waits for that."""

    def __init__(self, step: TrainStep, state: TrainState, batch: dict[str, Any]) -> None:
        """`state` and `batch`: shapes, types and placement of those that will come."""
        self._step = step
        self._compiled: jax.stages.Compiled | None = None
        self._began = time.monotonic()
        # Tracing holds Python's lock, and what JAX is set to in a context holds for one thread: it
        # is done in this one. XLA compiles without the lock.
        lowered = step.lower(state, batch)
        threads = ThreadPoolExecutor(1, thread_name_prefix="compile")
        self._compiling: Future[jax.stages.Compiled] = threads.submit(lowered.compile)
        threads.shutdown(wait=False)

    def __call__(self, state: TrainState, batch: dict[str, Any]) -> tuple[TrainState, StepValues]:
        """Takes a step."""
        if self._compiled is None:
            with says_what_takes_long("compiling the training step", self._began):
                self._compiled = self._compiling.result()
        stepped: tuple[TrainState, StepValues] = self._compiled(state, batch)
        return stepped

    def lower(self, state: TrainState, batch: dict[str, Any]) -> jax.stages.Lowered:
        """The step's program for another state or batch."""
        return self._step.lower(state, batch)
