"""Time has one home: where a time lies on a grid of rows, frames or output positions, and back.

Lengths are seconds, rates are a second; both are exact fractions in here. One rule places a time:
its index is `floor(seconds * rate)`, so a clip that starts inside a row starts at that row, in
features and targets alike. Milliseconds times a rate in floating point is off by one for many
rates: 290 ms at 100 a second gives 28.999999999999996.
"""

import functools
import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from jaxtyping import Int

Exact = Fraction | float | int
"""A length or a rate: exact where it was counted, as it was written where it comes of a config."""

# Video of NTSC countries has 30000/1001 frames a second or a simple part of that, and is said to
# have 29.97, 23.976 or 1.998: a millionth less, some 3 ms in a half.
_NTSC = Fraction(25, 1001)
_NTSC_TOLERANCE = 2e-6
# Later than this nothing lies (eleven days, formats.soccernet_labels): what fits in 64 bits.
_LARGEST_FACTOR = 2**63 // 10**10


@functools.lru_cache(maxsize=1024)
def exact_rate(rate: Exact | str) -> Fraction:
    """A rate as an exact fraction.

    What is two millionths of itself or less from a multiple of 25/1001 means that fraction (29.97,
    59.94, 23.976, 1.998, 30000 / 1001 / 15), whole numbers apart; "30000/1001" is read as well,
    and others are what their digits say.

    Raises:
        ValueError: a text that is no such fraction, a rate that isn't finite or not above 0.
    """
    if isinstance(rate, str):
        above, _, below = rate.partition("/")
        if not (above.strip().isdecimal() and below.strip().isdecimal() and int(below)):
            raise ValueError("it must be a number, or a fraction of two as '30000/1001'")
        exact = Fraction(int(above), int(below))
    else:
        exact = _exact(rate)
    if exact <= 0:
        raise ValueError("it must be above 0")
    if isinstance(rate, Fraction | str | int) or exact.denominator == 1:
        return exact
    nearest = round(exact / _NTSC) * _NTSC
    return nearest if abs(nearest - exact) <= _NTSC_TOLERANCE * exact else exact


@functools.lru_cache(maxsize=1024)
def exact_seconds(seconds: Exact) -> Fraction:
    """A length of time as an exact fraction: what its digits say, 12.5 or 0.1."""
    return _exact(seconds)


def _exact(value: Exact) -> Fraction:
    # By its digits: Fraction(0.1) is what the nearest float is, 1/36028797018963968 more.
    return value if isinstance(value, Fraction) else Fraction(str(value))


def duration(steps: int, rate: Exact) -> Fraction:
    """Seconds that so many rows, frames or positions last."""
    return steps / exact_rate(rate)


def index_at(seconds: Exact, rate: Exact) -> int:
    """The row, frame or position that a time lies in; also how many whole ones fit before it."""
    return math.floor(exact_seconds(seconds) * exact_rate(rate))


def indices_at(milliseconds: Int[np.ndarray, "event"], rate: Exact) -> Int[np.ndarray, "event"]:
    """`index_at` of many times in whole milliseconds: floor(ms * rate / 1000)."""
    exact = exact_rate(rate)
    small = exact.numerator < _LARGEST_FACTOR and exact.denominator < _LARGEST_FACTOR
    # A rate of sixteen digits takes Python's whole numbers, which have no end.
    whole = milliseconds.astype(np.int64 if small else object)
    return (whole * exact.numerator // (1000 * exact.denominator)).astype(np.int64)


def indices_of(times: Sequence[Fraction], rate: Exact) -> Int[np.ndarray, "time"]:
    """`index_at` of many times in seconds."""
    exact = exact_rate(rate)
    above = [time.numerator for time in times]
    below = [time.denominator for time in times]
    # Seconds of a half, at most ten thousand: what is multiplied fits in 64 bits.
    small = exact.numerator < _LARGEST_FACTOR // max(below, default=1) and (
        exact.denominator < _LARGEST_FACTOR
    )
    whole = np.array(above, np.int64 if small else object) * exact.numerator
    return (whole // (np.array(below, whole.dtype) * exact.denominator)).astype(np.int64)


def millisecond_of(index: int, rate: Exact) -> int:
    """The first whole millisecond in a row, frame or position: `indices_at` gives it back."""
    return math.ceil(1000 * index / exact_rate(rate))


def steps_of(seconds: Exact, rate: Exact) -> int:
    """Rows, frames or positions of a clip: the nearest whole number, half up.

    Clips of 50 s at 29.97 rows a second have 1,499 rows (1,498.5). They start where `index_at`
    says, so nothing drifts over a half.
    """
    return math.floor(exact_seconds(seconds) * exact_rate(rate) + Fraction(1, 2))


def steps_touched(seconds: Exact, rate: Exact) -> int:
    """Rows, frames or positions that hold every time below `seconds`; at least one."""
    return max(1, math.ceil(exact_seconds(seconds) * exact_rate(rate)))


def clip_starts(
    seconds: Exact, stride_seconds: Exact, clip_seconds: Exact, positions_per_second: Exact
) -> list[Fraction]:
    """Starts, in seconds, of the clips of a half: 0, stride, ..., below its last second.

    `range(0, T - 1, stride)` for whole seconds, as published; always at least one. Another one
    follows where these don't reach the half's end, as with strides of a clip's length. They hold
    every position of the half where the stride is at most `longest_stride`.
    """
    length, stride = exact_seconds(seconds), exact_seconds(stride_seconds)
    count = max(1, math.ceil((length - 1) / stride))
    starts = list(_multiples(stride, count))
    positions = steps_of(clip_seconds, positions_per_second)
    end = steps_touched(length, positions_per_second)
    while index_at(starts[-1], positions_per_second) + positions < end:
        following = starts[-1] + stride
        if index_at(following, positions_per_second) >= end:  # the last gap of a stride with gaps
            break
        starts.append(following)
    return starts


@functools.lru_cache(maxsize=1024)
def _multiples(stride: Fraction, count: int) -> tuple[Fraction, ...]:
    """0, stride, ...: halves are many, their lengths few."""
    return tuple(index * stride for index in range(count))


def longest_stride(clip_seconds: Exact, positions_per_second: Exact) -> Fraction:
    """Seconds between clips up to which they hold every position: as many as a clip has last.

    A little less than the clip, or more, where it has no whole number of positions.
    """
    return duration(steps_of(clip_seconds, positions_per_second), positions_per_second)
