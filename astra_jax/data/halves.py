"""One half of a match: its length, its files, its events, and ranges read out of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32

from astra_jax.data.annotations import Events
from astra_jax.data.arrays import ArrayFile
from astra_jax.data.clock import Clock
from astra_jax.data.sources import DataSpec
from astra_jax.data.time import Exact, exact_rate, exact_seconds, index_at

TAIL_SECONDS = 5
"""Lengths of files of one half may differ by this much."""


@dataclass(frozen=True, eq=False)
class Normalization:
    """Of one source: what is taken off its columns, and what they all are divided by."""

    mean: Float32[np.ndarray, " column"]
    scale: np.float32


@dataclass(frozen=True, eq=False)
class Half:
    """One half: `seconds` long, a file a source (None: absent), its audio file, its events.

    `seconds` is the length of the longest source. Holds no data and no file handle.
    `normalizations`: one a source, None where it is read as it is (`data.normalization`).
    """

    match: str
    half: int
    seconds: Exact
    sources: tuple[ArrayFile | Clock | None, ...]
    audio: ArrayFile | None
    events: Events
    spec: DataSpec
    normalizations: tuple[Normalization | None, ...] = ()

    def read_source(
        self, index: int, start_row: int, rows: int
    ) -> tuple[Float32[np.ndarray, "row column"], Bool[np.ndarray, "row"]]:
        """Rows [start_row, start_row + rows) of source `index`, and which of them are present.

        Past the end of a source that lasts as long as the half, up to 5 s less, its last row
        repeats and is present. Past the end of a shorter one, and where the file is absent, rows
        are zeros and not present. Errors: UserError as `ArrayFile.read`.
        """
        values = np.empty((rows, self.spec.sources[index].width), np.float32)
        present = np.empty(rows, bool)
        self.read_source_into(index, start_row, values, present)
        return values, present

    def read_source_into(
        self,
        index: int,
        start_row: int,
        values: Float[np.ndarray, "row column"],
        present: Bool[np.ndarray, "row"],
    ) -> None:
        """`read_source` into arrays that are there: float32, or float16 (`in_half_precision`)."""
        rate = self.spec.sources[index].rows_per_second
        self._read_into(self.sources[index], rate, start_row, values, present)
        if self.normalizations and (norm := self.normalizations[index]) is not None:
            values -= norm.mean
            values /= norm.scale
            if not present.all():
                values[~present] = 0

    def read_mel_power(
        self, start_frame: int, frames: int
    ) -> tuple[Float32[np.ndarray, "frame mel"], Bool[np.ndarray, "frame"]]:
        """Frames [start_frame, start_frame + frames) of mel power, and which of them are present.

        Ends are treated as in `read_source`; frames past the end of the half are cut.
        Errors: UserError as `ArrayFile.read`, ValueError where the data set has no audio.
        """
        spec = self.spec.audio
        power = np.empty((frames, 0 if spec is None else spec.mels), np.float32)
        present = np.empty(frames, bool)
        self.read_mel_power_into(start_frame, power, present)
        return power, present

    def read_mel_power_into(
        self,
        start_frame: int,
        power: Float32[np.ndarray, "frame mel"],
        present: Bool[np.ndarray, "frame"],
    ) -> None:
        """`read_mel_power` into arrays that are there."""
        spec = self.spec.audio
        if spec is None:
            raise ValueError("this data set has no audio (data.audio is None)")
        self._read_into(self.audio, spec.frames_per_second, start_frame, power, present)

    def _read_into(
        self,
        file: ArrayFile | Clock | None,
        rate: Exact,
        start: int,
        values: Float[np.ndarray, "row column"],
        present: Bool[np.ndarray, "row"],
    ) -> None:
        rows = 0 if file is None else min(file.rows, index_at(self.seconds, rate))
        inside = max(0, min(rows - start, len(values)))
        if file is not None and inside:
            file.read_into(start, values[:inside])
        present[:] = True
        if inside == len(values):
            return
        lasts = rows >= (exact_seconds(self.seconds) - TAIL_SECONDS) * exact_rate(rate)
        if file is not None and rows and lasts:
            if not inside:
                file.read_into(rows - 1, values[:1])
                inside = 1
            values[inside:] = values[inside - 1]
        else:
            values[inside:] = 0
            present[inside:] = False


def in_half_precision(halves: Sequence[Half]) -> tuple[bool, ...]:
    """Of which sources float16 will do: every file holds it, and nothing is computed of them."""
    return tuple(
        all(
            file is None or (isinstance(file, ArrayFile) and file.dtype == np.float16)
            for file in (half.sources[index] for half in halves)
        )
        and not any(half.normalizations and half.normalizations[index] for half in halves)
        and any(half.sources[index] is not None for half in halves)
        for index in range(len(halves[0].spec.sources))
    )
