"""What a simulated match looks and sounds like: a continuous-time pattern for each class.

A class's pattern is a sum of bumps: at some seconds before or after the event, one embedding
moves along one direction. Four groups of classes share what embedding 0 shows. Within a group,
classes are told apart by the way embedding 1 moves some seconds later and by what embedding 2
shows several seconds before or after. The sound is a swell in all mel bands, a burst in bands of
the group and, several seconds before or after, one in bands of the class.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32

from astra_jax.config.classes import CLASSES
from astra_jax.config.simulated import EMBEDDING_WIDTHS, FRAMES_PER_SECOND, MELS
from astra_jax.data.simulation.events import HalfEvents

REFERENCE_POWER = 7430.77
"""The mel power that counts as 0 dB."""

EMBEDDING_SCALE = 4.0
"""Embeddings are stored this much larger, so that what they say outweighs the codes added to their
tokens: at a scale of 1 a small ASTRA is still guessing after the steps in which it now learns."""
DRIFT_DIRECTIONS = 2
"""Directions in which an embedding drifts."""
LOUDNESS_DRIFT_DB = 3.0
FRAME_NOISE_DB = 2.0

_REACH_SECONDS = 13.0
_CONTEXT_WIDTH_SECONDS = 1.0
# Out of sight of whoever looks at the 2 s around an event.
_SIDE_LAG_SECONDS = 4.8
_BACKGROUND_DB = -30.0


@dataclass(frozen=True)
class ClassPattern:
    """Group of look-alikes in embedding 0, the way (+-1) embedding 1 moves, and what frames it.

    `context` are pairs of a symbol of embedding 2 and its seconds after (negative: before) the
    event.
    """

    group: str
    side: int
    context: tuple[tuple[str, float], ...]


CLASS_PATTERNS: dict[str, ClassPattern] = {
    "Penalty": ClassPattern("shot", -1, (("line-up", -6.5),)),
    "Kick-off": ClassPattern("restart", 1, (("line-up", -6.5),)),
    "Goal": ClassPattern("shot", 1, (("celebration", 6.5),)),
    "Substitution": ClassPattern("stoppage", 1, (("bench", -6.5),)),
    "Offside": ClassPattern("whistle", -1, (("flag", 6.5),)),
    "Shots on target": ClassPattern("shot", 1, (("save", 6.5),)),
    "Shots off target": ClassPattern("shot", -1, (("goal kick", 6.5),)),
    "Clearance": ClassPattern("stoppage", -1, (("goal kick", -6.5),)),
    "Ball out of play": ClassPattern("stoppage", 1, (("ball boy", 6.5),)),
    "Throw-in": ClassPattern("stoppage", -1, (("ball boy", -6.5),)),
    "Foul": ClassPattern("whistle", 1, (("referee", 6.5),)),
    "Indirect free-kick": ClassPattern("restart", 1, (("referee", -6.5),)),
    "Direct free-kick": ClassPattern("restart", -1, (("wall", -6.5),)),
    "Corner": ClassPattern("restart", -1, (("crowd", -6.5),)),
    "Yellow card": ClassPattern("whistle", 1, (("card", 6.5),)),
    "Red card": ClassPattern("whistle", -1, (("leaving", 7.0),)),
    "Yellow->red card": ClassPattern("whistle", -1, (("card", 6.5), ("leaving", 8.5))),
}
_GROUPS = tuple(sorted({p.group for p in CLASS_PATTERNS.values()}))
_SYMBOLS = tuple(sorted({s for p in CLASS_PATTERNS.values() for s, _ in p.context}))


@dataclass(frozen=True)
class SignalSpec:
    """Strengths of the signals; visual ones in units of the embeddings' noise.

    alarm: a bump in embedding 0 that all classes share.
    opening: the group's bumps in embedding 0, around the event.
    side: the bump in embedding 1 after the event, one way or the other.
    context: the bumps in embedding 2 before or after the event.
    drift: slow movement of all embeddings.
    not_shown: factor on the visual strengths where an event is not shown.
    sound_db: the class's bursts where an event is shown; sound_not_shown_db where it is not.
    sound_noise_db: the crowd, changing from second to second.
    """

    alarm: float
    opening: float
    side: float
    context: float
    drift: float
    not_shown: float
    sound_db: float
    sound_not_shown_db: float
    sound_noise_db: float


@dataclass(frozen=True)
class Bump:
    """One bump of a pattern: `size * exp(-((time - event - lag) / width)^2 / 2)`, in seconds."""

    lag: float
    width: float
    direction: Float[np.ndarray, "column"]


@dataclass(frozen=True)
class Patterns:
    """Every class's bumps, over the embeddings side by side and over the mel bands (in dB)."""

    visual: tuple[tuple[Bump, ...], ...]
    sound: tuple[tuple[Bump, ...], ...]


def draw_patterns(spec: SignalSpec, rng: np.random.Generator) -> Patterns:
    """The patterns of one simulated world: which directions and bands carry which class."""
    wide, close, scene = (np.linalg.qr(rng.standard_normal((w, w)))[0] for w in EMBEDDING_WIDTHS)
    group_bands = np.sqrt(MELS) * _unit(rng.standard_normal((len(_GROUPS), MELS)))
    class_bands = np.sqrt(MELS) * _unit(rng.standard_normal((len(CLASSES), MELS)))
    visual, sound = [], []
    for index, label in enumerate(CLASSES):
        pattern = CLASS_PATTERNS[label]
        group = _GROUPS.index(pattern.group)
        bumps = [
            Bump(0.0, 1.0, _place(0, spec.alarm * wide[0])),
            Bump(-1.6, 0.7, _place(0, spec.opening * wide[1 + 2 * group])),
            Bump(0.2, 0.6, _place(0, spec.opening * wide[2 + 2 * group])),
            Bump(_SIDE_LAG_SECONDS, 0.8, _place(1, pattern.side * spec.side * close[group])),
        ]
        for symbol, lag in pattern.context:
            vector = spec.context * scene[_SYMBOLS.index(symbol)]
            bumps.append(Bump(lag, _CONTEXT_WIDTH_SECONDS, _place(2, vector)))
        visual.append(tuple(bumps))
        sound.append(
            (
                Bump(0.3, 0.6, group_bands[group]),
                Bump(pattern.context[0][1], _CONTEXT_WIDTH_SECONDS, class_bands[index]),
                Bump(1.0, 1.5, np.full(MELS, 0.6)),
            )
        )
    return Patterns(tuple(visual), tuple(sound))


def clean_signal(
    bumps: tuple[tuple[Bump, ...], ...],
    events: HalfEvents,
    sizes: Float[np.ndarray, "event"],
    times: Float[np.ndarray, "time"],
) -> Float32[np.ndarray, "time column"]:
    """The sum of the events' patterns, each times its size, at regular `times` (seconds)."""
    signal = np.zeros((len(times), len(bumps[0][0].direction)), np.float32)
    for second, index, size in zip(events.seconds, events.class_ids, sizes, strict=True):
        first, last = np.searchsorted(times, [second - _REACH_SECONDS, second + _REACH_SECONDS])
        elapsed = times[first:last] - second
        for bump in bumps[index]:
            height = np.exp(-(((elapsed - bump.lag) / bump.width) ** 2) / 2)
            signal[first:last] += (size * height)[:, None].astype(np.float32) * bump.direction
    return signal


def embeddings(
    patterns: Patterns,
    spec: SignalSpec,
    events: HalfEvents,
    seconds: int,
    rng: np.random.Generator,
) -> Float32[np.ndarray, "row column"]:
    """The half's embeddings side by side, one row a second: row r shows second r."""
    times = np.arange(seconds, dtype=np.float64)
    sizes = np.where(events.visible, 1.0, spec.not_shown) * _event_sizes(events, rng)
    signal = clean_signal(patterns.visual, events, sizes, times)
    for first, width in zip(np.cumsum((0, *EMBEDDING_WIDTHS)), EMBEDDING_WIDTHS, strict=False):
        directions = _unit(rng.standard_normal((DRIFT_DIRECTIONS, width)))
        signal[:, first : first + width] += spec.drift * slow(times, rng) @ directions
    return EMBEDDING_SCALE * (signal + rng.standard_normal(signal.shape, np.float32))


def mel_power(
    patterns: Patterns,
    spec: SignalSpec,
    events: HalfEvents,
    seconds: int,
    rng: np.random.Generator,
) -> Float32[np.ndarray, "mel frame"]:
    """The half's mel power, `FRAMES_PER_SECOND` frames a second."""
    frames = seconds * FRAMES_PER_SECOND
    # Patterns and crowd change over tenths of seconds: drawn ten times a second, then stretched.
    coarse = np.arange(seconds * 10 + 1) / 10
    sizes = np.where(events.visible, spec.sound_db, spec.sound_not_shown_db)
    decibels = clean_signal(patterns.sound, events, sizes * _event_sizes(events, rng), coarse)
    decibels += _BACKGROUND_DB - 0.5 * np.arange(MELS, dtype=np.float32)
    decibels += LOUDNESS_DRIFT_DB * slow(coarse, rng)[:, :1].astype(np.float32)
    crowd = rng.standard_normal((seconds + 1, MELS)) * spec.sound_noise_db
    knots = np.clip(coarse - 0.5, 0, seconds)
    decibels += _interpolate(crowd, knots)
    fine = _interpolate(decibels, np.arange(frames) / FRAMES_PER_SECOND * 10)
    fine += FRAME_NOISE_DB * rng.standard_normal(fine.shape, np.float32)
    # Digital sound has a loudest value; it also keeps the power inside float16.
    power = REFERENCE_POWER * np.exp(np.minimum(fine, 0.0) * np.float32(np.log(10) / 10))
    return power.T


def slow(
    times: Float[np.ndarray, "time"], rng: np.random.Generator
) -> Float[np.ndarray, "time drift"]:
    """Unit-variance drift with periods of 40 to 400 s, and so hardly any within an event."""
    periods = np.exp(rng.uniform(np.log(40), np.log(400), (3, DRIFT_DIRECTIONS)))
    phases = rng.uniform(0, 2 * np.pi, (3, DRIFT_DIRECTIONS))
    waves = np.sin(2 * np.pi * times[:, None, None] / periods + phases)
    return waves.sum(1) * np.sqrt(2 / 3)


def _event_sizes(events: HalfEvents, rng: np.random.Generator) -> Float[np.ndarray, "event"]:
    return rng.uniform(0.8, 1.25, len(events.seconds))


def _place(embedding: int, vector: Float[np.ndarray, "width"]) -> Float[np.ndarray, "column"]:
    """`vector` in its embedding's columns, zeros in the others."""
    starts = np.cumsum((0, *EMBEDDING_WIDTHS))
    columns = np.zeros(starts[-1])
    columns[starts[embedding] : starts[embedding + 1]] = vector
    return columns


def _unit(vectors: Float[np.ndarray, "... column"]) -> Float[np.ndarray, "... column"]:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def _interpolate(
    values: Float[np.ndarray, "knot column"], at: Float[np.ndarray, "time"]
) -> Float32[np.ndarray, "time column"]:
    """`values` at fractional indices, linear in between."""
    left = np.minimum(at.astype(np.int64), len(values) - 2)
    part = (at - left).astype(np.float32)[:, None]
    values = values.astype(np.float32)
    return values[left] * (1 - part) + values[left + 1] * part
