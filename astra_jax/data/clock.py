"""The clock of a half, a source that needs no file: how long it has run, how long it still runs.

Nothing else tells the model that a clip begins a half, where kick-offs are; clips look alike to it
wherever they lie (docs/small_data.md).
"""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from jaxtyping import Float32

from astra_jax.config.clock import CLOCK_DECAYS_SECONDS
from astra_jax.data.time import Exact, index_at

SLOWEST = Fraction(1, 5)
"""Fewest rows a second: files of a half, and so its clock, may end 5 s apart."""


@dataclass(frozen=True)
class Clock:
    """The rows of a half's clock, read like a file of features.

    Columns: `exp(-t / d)` for each d of `CLOCK_DECAYS_SECONDS`, t being the seconds since the
    half's start; then the same of the seconds until its last row.
    """

    seconds: Exact
    rows_per_second: Exact

    @property
    def rows(self) -> int:
        """Whole rows that fit in the half."""
        return index_at(self.seconds, self.rows_per_second)

    def read(self, start: int, stop: int) -> Float32[np.ndarray, "row column"]:
        """Rows [start, stop)."""
        row = np.arange(start, stop)[:, None]
        rate = float(self.rows_per_second)
        since = row / rate
        until = (self.rows - 1 - row) / rate
        decays = np.array(CLOCK_DECAYS_SECONDS)
        values = np.exp(-np.concatenate([since / decays, until / decays], axis=1))
        return values.astype(np.float32)

    def read_into(self, start: int, out: Float32[np.ndarray, "row column"]) -> None:
        """As many rows from `start` on as `out` has."""
        out[:] = self.read(start, start + len(out))
