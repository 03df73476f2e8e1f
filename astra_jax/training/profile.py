"""A trace of some steps of a training, for TensorBoard or Perfetto."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax

from astra_jax.errors import one_line

_BEFORE = 3
"""Steps that are not traced: the first one compiles, the next ones fill buffers."""


class Profile:
    """Traces `steps` steps into `folder`, once a few were taken; close it at the end of the run.

    `tell` gets the line that says where the trace is. A trace that can't be made or written ends no
    training: the line says why.
    """

    def __init__(self, folder: Path, steps: int, tell: Callable[[str], None]) -> None:
        """Raises OSError where the folder can't be made: before anything is trained."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._steps, self._tell = folder, steps, tell
        self._taken, self._tracing = 0, False

    def taken(self, values: Any) -> None:
        """Counts a step; `values` are there when it ends, which a trace waits for at its ends."""
        self._taken += 1
        if self._taken == _BEFORE:
            jax.block_until_ready(values)
            options = jax.profiler.ProfileOptions()
            options.python_tracer_level = 0  # every call of Python would hide what is computed
            with self._faults_are_told():
                jax.profiler.start_trace(
                    self._folder, create_perfetto_trace=True, profiler_options=options
                )
                self._tracing = True
        elif self._taken == _BEFORE + self._steps:
            jax.block_until_ready(values)
            self.close()

    def close(self) -> None:
        """Writes what was traced so far; nothing where that was done already."""
        traced = self._taken - _BEFORE
        if self._tracing:
            self._tracing = False
            with self._faults_are_told():
                jax.profiler.stop_trace()
                if traced:
                    self._tell(
                        f"{traced} step(s) traced: tensorboard --logdir {self._folder}, or open "
                        "the newest perfetto_trace.json.gz below it at https://ui.perfetto.dev"
                    )
        if traced <= 0:
            self._tell(f"no step traced: the first {_BEFORE} never are, and there were no more")

    @contextlib.contextmanager
    def _faults_are_told(self) -> Iterator[None]:
        try:
            yield
        except (OSError, RuntimeError) as error:  # a full disk; another trace of this process
            self._tell(f"{self._folder}: no trace ({one_line(error)}): the run goes on without")
