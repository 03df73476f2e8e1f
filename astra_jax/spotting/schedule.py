"""The order in which a half is predicted: which pieces are read and embedded before which windows.

What is embedded lies on the devices, in a store of fixed size for each stream, a ring: piece k has
its place at k modulo the size, and stays there until no window needs it any more. So halves of any
length take the same programs and the same memory.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from astra_jax.data.halves import Half
from astra_jax.data.time import Exact, exact_seconds, steps_touched
from astra_jax.spotting.pieces import Pieces, Stream, number_pieces, rate_of, read_pieces
from astra_jax.spotting.windows import batch_windows

# A block reads all weights of its embedding: it is large enough to pay for that, and fits anywhere.
_FEWEST_ROWS, _MOST_ROWS = 256, 1024
_MOST_SEGMENTS, _SEGMENTS_A_WINDOW = 64, 8


@dataclass(frozen=True)
class WindowLayout:
    """How halves are cut into windows: their length, the time from one to the next, in batches."""

    clip_seconds: Exact
    stride_seconds: Exact
    batch_size: int
    devices: int

    def block(self, stream: Stream, rate: Exact) -> int:
        """Pieces embedded at a time.

        About as many rows as a batch of windows brings, or some segments of audio: fewer where the
        batch is small, as where memory is.
        """
        if stream.source is None:
            pieces = min(_MOST_SEGMENTS, _SEGMENTS_A_WINDOW * self.batch_size)
        else:
            batch = self.batch_size * exact_seconds(self.stride_seconds)
            pieces = min(max(_FEWEST_ROWS, steps_touched(batch, rate)), _MOST_ROWS)
        return -(-pieces // self.devices) * self.devices

    def store_size(self, stream: Stream, rate: Exact) -> int:
        """Pieces that must be there at once, a whole number of blocks.

        A batch needs its own windows' pieces and such as earlier windows needed first: those that
        reach into its first one.
        """
        reach = math.ceil(exact_seconds(self.clip_seconds) / exact_seconds(self.stride_seconds))
        block = self.block(stream, rate)
        needed = (self.batch_size + reach + 1) * stream.in_clip + block
        return -(-needed // block) * block


@dataclass(frozen=True)
class Block:
    """Pieces to be embedded, for all models that read the half like `reader`.

    `half` is the number of their half. `place`: of the first in the store, which has `size` places.
    What fills up the last block of a half is its last piece again.
    """

    half: int
    reader: int
    stream: int
    place: int
    size: int
    pieces: Float[np.ndarray, "piece *column"]
    present: Bool[np.ndarray, " piece"]


@dataclass(frozen=True)
class WindowBatch:
    """Windows to be predicted: by reader the place of each piece, and whether it is present.

    `count` of them count, the others fill the batch up. `half` is the number of their half, and
    `last` says that they are its last ones.
    """

    half: int
    count: int
    last: bool
    places: tuple[tuple[Int[np.ndarray, "window _"], ...], ...]
    present: tuple[tuple[Bool[np.ndarray, "window _"], ...], ...]


Reader = tuple[Half, tuple[Stream, ...]]
"""A half as a model reads it."""


def schedule(
    half: int, readers: Sequence[Reader], starts: Sequence[Exact], layout: WindowLayout
) -> Iterator[Block | WindowBatch]:
    """Every batch of a half's windows, and before it the blocks of pieces that it needs first.

    Errors: UserError as `read_pieces`, when what can't be read comes.
    """
    readings = [
        _Reading(half, number, *reader, starts, layout) for number, reader in enumerate(readers)
    ]
    numbers = range(len(starts))
    for first, batch in zip(
        numbers[:: layout.batch_size], batch_windows(numbers, layout.batch_size), strict=True
    ):
        windows = np.array(batch)
        for reading in readings:
            yield from reading.blocks(windows)
        count = min(layout.batch_size, len(starts) - first)
        found = [reading.windows(windows) for reading in readings]
        yield WindowBatch(
            half,
            count,
            first + count == len(starts),
            tuple(places for places, _ in found),
            tuple(present for _, present in found),
        )


class _Reading:
    """A half on its way to the devices: what of it has been read."""

    def __init__(
        self,
        number: int,
        reader: int,
        half: Half,
        streams: Sequence[Stream],
        starts: Sequence[Exact],
        layout: WindowLayout,
    ) -> None:
        self._number, self._reader, self._half, self._streams = number, reader, half, streams
        rates = [rate_of(half, stream) for stream in streams]
        self._pieces = [number_pieces(half, stream, starts) for stream in streams]
        self._block = [layout.block(*pair) for pair in zip(streams, rates, strict=True)]
        self._size = [layout.store_size(*pair) for pair in zip(streams, rates, strict=True)]
        self._present = [np.zeros(len(pieces.first), bool) for pieces in self._pieces]
        self._read = [0] * len(streams)

    def blocks(self, windows: Int[np.ndarray, " window"]) -> Iterator[Block]:
        """Reads what these windows need and earlier ones didn't."""
        for stream, pieces in enumerate(self._pieces):
            end = int(pieces.of_window[windows].max()) + 1
            while self._read[stream] < end:
                yield self._next_block(stream, pieces)

    def _next_block(self, stream: int, pieces: Pieces) -> Block:
        block, begin = self._block[stream], self._read[stream]
        chosen = pieces.first[begin : begin + block]
        values, present = read_pieces(self._half, self._streams[stream], chosen)
        self._present[stream][begin : begin + block] = present
        self._read[stream] += block
        if missing := block - len(chosen):
            values = np.concatenate([values, values[-1:].repeat(missing, axis=0)])
            present = np.concatenate([present, present[-1:].repeat(missing)])
        size = self._size[stream]
        return Block(self._number, self._reader, stream, begin % size, size, values, present)

    def windows(self, windows: Int[np.ndarray, " window"]) -> tuple[Any, Any]:
        """Of each stream the places of the windows' pieces, and which are present."""
        numbers = [pieces.of_window[windows] for pieces in self._pieces]
        places = [
            (number % size).astype(np.int32)
            for number, size in zip(numbers, self._size, strict=True)
        ]
        present = [there[number] for there, number in zip(self._present, numbers, strict=True)]
        return tuple(places), tuple(present)
