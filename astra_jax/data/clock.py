"""The clock of a half, a source that needs no file: how long it has run, how long it still runs.

Nothing else tells the model that a clip begins a half, where kick-offs are; clips look alike to it
wherever they lie (docs/small_data.md).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from astra_jax.config.clock import CLOCK_DECAYS_SECONDS

SLOWEST = 0.2
"""Fewest rows a second: files of a half, and so its clock, may end 5 s apart."""


@dataclass(frozen=True)
class Clock:
    """The rows of a half's clock, read like a file of features.

    Columns: `exp(-t / d)` for each d of `CLOCK_DECAYS_SECONDS`, t being the seconds since the
    half's start; then the same of the seconds until its last row.
    """

    seconds: float
    rows_per_second: float

    @property
    def rows(self) -> int:
        """Whole rows that fit in the half."""
        return int(self.seconds * self.rows_per_second + 1e-6)

    def read(self, start: int, stop: int) -> Float32[np.ndarray, "row column"]:
        """Rows [start, stop)."""
        row = np.arange(start, stop)[:, None]
        since = row / self.rows_per_second
        until = (self.rows - 1 - row) / self.rows_per_second
        decays = np.array(CLOCK_DECAYS_SECONDS)
        values = np.exp(-np.concatenate([since / decays, until / decays], axis=1))
        return values.astype(np.float32)
