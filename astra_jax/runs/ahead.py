"""The step's program, compiled while the rest of a run is made ready."""

import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax

from astra_jax.data.pipeline import TrainingStream
from astra_jax.devices import abstract_batch, batch_sharding, in_32_bits
from astra_jax.runs.components import Computation
from astra_jax.runs.waiting import says_what_takes_long
from astra_jax.training.state import StepValues, TrainState
from astra_jax.training.step import TrainStep


def compile_ahead(computation: Computation, stream: TrainingStream) -> TrainStep:
    """Begins to compile the run's step, for its state and for batches such as the stream's.

    Reads one clip, in this thread. What fails in the other one is raised by the first step. A step
    that isn't a jitted function itself, but calls one, is returned as it is.
    """
    if not isinstance(computation.step, jax.stages.Wrapped):
        return computation.step
    return StepAhead(computation, stream.example(), stream.batch_size)


class StepAhead:
    """A `TrainStep` that a thread of its own compiles, once; the first call waits for that."""

    def __init__(self, computation: Computation, example: dict[str, Any], clips: int) -> None:
        """`example`: of a batch, in which there are so many clips over all processes."""
        self._step: TrainStep = computation.step
        self._compiled: Any = None
        self._began = time.monotonic()
        state = computation.abstract_state()
        batch = abstract_batch(example, batch_sharding(computation.mesh), clips)
        # XLA compiles without Python's lock; tracing, which comes first, shares it.
        thread = ThreadPoolExecutor(1, thread_name_prefix="compile")

        # What JAX is set to within a context holds in one thread only.
        @in_32_bits
        def compile_step() -> jax.stages.Compiled:
            return self._step.lower(state, batch).compile()

        self._compiling: Future[jax.stages.Compiled] = thread.submit(compile_step)
        thread.shutdown(wait=False)

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
