"""A trace of some steps of a training, for TensorBoard or Perfetto."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

_BEFORE = 3
"""Steps that are not traced: the first one compiles, the next ones fill buffers."""


class Profile:
    """Traces `steps` steps into `folder`, once a few were taken; close it at the end of the run.

    `tell` gets the line that says where the trace is.
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
            jax.profiler.start_trace(
                self._folder, create_perfetto_trace=True, profiler_options=options
            )
            self._tracing = True
        elif self._taken == _BEFORE + self._steps:
            jax.block_until_ready(values)
            self.close()

    def close(self) -> None:
        """Writes what was traced so far; nothing where that was done already."""
        if self._tracing:
            self._tracing = False
            jax.profiler.stop_trace()
            self._tell(
                f"{self._taken - _BEFORE} steps traced: tensorboard --logdir {self._folder}, or "
                "open the newest perfetto_trace.json.gz below it at https://ui.perfetto.dev"
            )
        elif self._taken < _BEFORE:
            self._tell(f"no step traced: the first {_BEFORE} never are, and there were no more")
