"""What of a half is embedded by itself, and so once: rows of its sources, segments of its audio.

A window holds as many pieces of a stream (a source, or the audio) as a clip does. Windows overlap,
so they share pieces: all rows, and those segments that begin at the same frame, which are fewer,
since every window cuts the audio from its own start on.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from astra_jax.data.audio import power_to_db
from astra_jax.data.halves import Half
from astra_jax.data.time import Exact, index_at
from astra_jax.model import ModelConfig


@dataclass(frozen=True)
class Stream:
    """A source of a model, or its audio (`source` None): a clip holds `in_clip` pieces of it.

    A piece is `length` rows or frames long: one row, or the frames of a segment.
    """

    source: int | None
    in_clip: int
    length: int = 1


def streams_of(config: ModelConfig) -> tuple[Stream, ...]:
    """The streams of a model: its sources, then its audio."""
    streams = [Stream(index, source.rows) for index, source in enumerate(config.sources)]
    if config.audio is not None:
        streams.append(Stream(None, config.audio.segments, config.audio.segment_frames))
    return tuple(streams)


def rate_of(half: Half, stream: Stream) -> Exact:
    """Rows or frames a second."""
    if stream.source is not None:
        return half.spec.sources[stream.source].rows_per_second
    assert half.spec.audio is not None  # else the model has none
    return half.spec.audio.frames_per_second


@dataclass(frozen=True)
class Pieces:
    """The pieces of a stream that windows hold, numbered as the windows come to need them.

    `first`: the row or frame that each begins with; `of_window`: the numbers of each window's.
    """

    first: Int[np.ndarray, " piece"]
    of_window: Int[np.ndarray, "window slot"]


def number_pieces(half: Half, stream: Stream, starts: Sequence[Exact]) -> Pieces:
    """The pieces of windows that start at so many seconds of a half."""
    rate = rate_of(half, stream)
    begin = np.array([index_at(start, rate) for start in starts], np.int64)
    held = begin[:, None] + np.arange(stream.in_clip) * stream.length
    distinct, where, number = np.unique(held, return_index=True, return_inverse=True)
    order = np.argsort(where)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return Pieces(distinct[order], place[number.reshape(held.shape)])


def read_pieces(
    half: Half, stream: Stream, first: Int[np.ndarray, " piece"]
) -> tuple[Float[np.ndarray, "piece *column"], Bool[np.ndarray, " piece"]]:
    """Rows, or segments of decibels, that begin with these rows or frames; which are present.

    They lie close together: all from the earliest to the latest is read. Ends of a half are
    treated, and errors raised, as in `data.clips.read_inputs`; a segment is present where all its
    frames are.
    """
    start = int(first.min())
    count = int(first.max()) + stream.length - start
    if stream.source is not None:
        values, present = half.read_source(stream.source, start, count)
        return values[first - start], present[first - start]
    assert half.spec.audio is not None  # else the model has none
    power, present = half.read_mel_power(start, count)
    frames = (first - start)[:, None] + np.arange(stream.length)
    decibels = np.asarray(power_to_db(power, half.spec.audio.floor_db))
    return decibels[frames], np.asarray(present[frames].all(axis=1))
