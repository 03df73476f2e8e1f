"""One half of a match: its length, its files, its events, and ranges read out of them."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32

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
        spec = self.spec.sources[index]
        values, present = self._read(
            self.sources[index], spec.rows_per_second, spec.width, start_row, rows
        )
        if self.normalizations and (norm := self.normalizations[index]) is not None:
            values = np.where(present[:, None], (values - norm.mean) / norm.scale, np.float32(0))
        return values, present

    def read_mel_power(
        self, start_frame: int, frames: int
    ) -> tuple[Float32[np.ndarray, "frame mel"], Bool[np.ndarray, "frame"]]:
        """Frames [start_frame, start_frame + frames) of mel power, and which of them are present.

        Ends are treated as in `read_source`; frames past the end of the half are cut.
        Errors: UserError as `ArrayFile.read`, ValueError where the data set has no audio.
        """
        spec = self.spec.audio
        if spec is None:
            raise ValueError("this data set has no audio (data.audio is None)")
        return self._read(self.audio, spec.frames_per_second, spec.mels, start_frame, frames)

    def _read(
        self, file: ArrayFile | Clock | None, rate: Exact, width: int, start: int, count: int
    ) -> tuple[Float32[np.ndarray, "row column"], Bool[np.ndarray, "row"]]:
        rows = 0 if file is None else min(file.rows, index_at(self.seconds, rate))
        if file is None or rows == 0:
            return np.zeros((count, width), np.float32), np.zeros(count, bool)
        inside = max(0, min(rows - start, count))
        if inside == count:
            return file.read(start, start + count), np.ones(count, bool)
        values = np.zeros((count, width), np.float32)
        if rows >= (exact_seconds(self.seconds) - TAIL_SECONDS) * exact_rate(rate):
            first = min(start, rows - 1)
            read = file.read(first, first + max(inside, 1))
            values[:inside] = read[:inside]
            values[inside:] = read[-1]
            return values, np.ones(count, bool)
        if inside:
            values[:inside] = file.read(start, start + inside)
        return values, np.arange(count) < inside
