"""Clips of halves: what the model is given and what it should answer, as dicts of arrays.

A clip example is `{"features": (Float32[row column], ...) one a source, "log_mel":
Float32[frame mel] in decibels, "masks": {"features": (Bool[row], ...), "log_mel": Bool[frame]},
"class_targets": Float32[position class], "displacements": likewise, "displacement_mask":
Bool[position class]}`. Masks are True where data is present; both `log_mel` keys are absent where
the data set has no audio. A batch has a leading axis everywhere. Features may be float16 as well,
where files hold it (`halves.in_half_precision`).
"""

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from jaxtyping import Bool

from astra_jax.data.audio import turn_to_db
from astra_jax.data.halves import Half
from astra_jax.data.sources import DataSpec
from astra_jax.data.targets import Targets, TargetSpec, clip_targets
from astra_jax.data.time import Exact, index_at, indices_at, indices_of, steps_of

Allocate = Callable[[tuple[int, ...], Any], Any]
"""What makes an array of a shape and a type, as `np.empty` does."""


def empty_inputs(
    spec: DataSpec,
    clip_seconds: Exact,
    half_precision: Sequence[bool],
    clips: tuple[int, ...] = (),
    allocate: Allocate = np.empty,
) -> dict[str, Any]:
    """The arrays of a clip's features, log-mel and masks, to be filled; of a batch with `clips`.

    `half_precision`: of which sources the features are float16.
    """
    rows = [steps_of(clip_seconds, source.rows_per_second) for source in spec.sources]
    inputs: dict[str, Any] = {
        "features": tuple(
            allocate((*clips, count, source.width), np.float16 if half else np.float32)
            for source, count, half in zip(spec.sources, rows, half_precision, strict=True)
        ),
        "masks": {"features": tuple(np.empty((*clips, count), bool) for count in rows)},
    }
    if (audio := spec.audio) is not None:
        frames = steps_of(clip_seconds, audio.frames_per_second)
        inputs["log_mel"] = allocate((*clips, frames, audio.mels), np.float32)
        inputs["masks"]["log_mel"] = np.empty((*clips, frames), bool)
    return inputs


def empty_clip(
    spec: DataSpec,
    targets: TargetSpec,
    half_precision: Sequence[bool],
    clips: tuple[int, ...] = (),
    allocate: Allocate = np.empty,
) -> dict[str, Any]:
    """The arrays of a clip example; see `empty_inputs`."""
    shape = (*clips, targets.positions, targets.num_classes + 1)
    return {
        **empty_inputs(spec, targets.clip_seconds, half_precision, clips, allocate),
        "class_targets": np.empty(shape, np.float32),
        "displacements": np.empty(shape, np.float32),
        "displacement_mask": np.empty(shape, bool),
    }


def read_inputs_into(half: Half, start_seconds: Exact, inputs: dict[str, Any]) -> None:
    """Features, log-mel and masks of the clip at `start_seconds` of a half.

    Each source begins with the row that the start lies in (`data.time`). Past the half's end the
    last row and frame repeat; absent data is zeros (the floor, for log-mel) with a False mask.
    Errors: UserError for files that changed or hold NaN.
    """
    spec, masks = half.spec, inputs["masks"]
    for index, source in enumerate(spec.sources):
        first = index_at(start_seconds, source.rows_per_second)
        half.read_source_into(index, first, inputs["features"][index], masks["features"][index])
    if (audio := spec.audio) is not None:
        first = index_at(start_seconds, audio.frames_per_second)
        half.read_mel_power_into(first, inputs["log_mel"], masks["log_mel"])
        turn_to_db(inputs["log_mel"], audio.floor_db)


def read_inputs(half: Half, start_seconds: Exact, clip_seconds: Exact) -> dict[str, Any]:
    """`read_inputs_into` new arrays, all float32."""
    inputs = empty_inputs(half.spec, clip_seconds, [False] * len(half.spec.sources))
    read_inputs_into(half, start_seconds, inputs)
    return inputs


def read_targets(half: Half, start_seconds: Exact, spec: TargetSpec) -> Targets:
    """Targets of the clip at `start_seconds` of a half, from its events."""
    rate = spec.positions_per_second
    return clip_targets(
        indices_at(half.events.milliseconds, rate),
        half.events.class_ids,
        index_at(start_seconds, rate),
        spec,
    )


def read_clip_into(
    half: Half, start_seconds: Exact, spec: TargetSpec, clip: dict[str, Any]
) -> None:
    """The clip example at `start_seconds` of a half. Errors as `read_inputs_into`."""
    read_inputs_into(half, start_seconds, clip)
    targets = read_targets(half, start_seconds, spec)
    clip["class_targets"][:] = targets.class_targets
    clip["displacements"][:] = targets.displacements
    clip["displacement_mask"][:] = targets.displacement_mask


def read_clip(half: Half, start_seconds: Exact, spec: TargetSpec) -> dict[str, Any]:
    """`read_clip_into` new arrays, all float32."""
    clip = empty_clip(half.spec, spec, [False] * len(half.spec.sources))
    read_clip_into(half, start_seconds, spec, clip)
    return clip


def classes_in_clips(
    halves: Sequence[Half], starts: Sequence[Sequence[Fraction]], spec: TargetSpec
) -> Bool[np.ndarray, "clip class"]:
    """Which classes (column 0: background) the targets of every clip hold, halves in order.

    What `read_targets` says, of all clips of a half at once.
    """
    if not starts:
        return np.zeros((0, spec.num_classes + 1), bool)
    return np.concatenate(
        [_classes(half, of_half, spec) for half, of_half in zip(halves, starts, strict=True)]
    )


def _classes(
    half: Half, starts: Sequence[Fraction], spec: TargetSpec
) -> Bool[np.ndarray, "clip class"]:
    rate, radius = spec.positions_per_second, spec.class_radius
    firsts = indices_of(starts, rate)
    ends = firsts + spec.positions
    events = indices_at(half.events.milliseconds, rate)  # in order of time
    # Of each clip, its events are those from `low` to `high`.
    low, high = np.searchsorted(events, firsts), np.searchsorted(events, ends)
    of_class = half.events.class_ids[:, None] == np.arange(spec.num_classes)
    until = np.cumsum(np.pad(of_class, ((1, 0), (0, 0))), axis=0)  # so many of the first events
    holds = np.empty((len(firsts), spec.num_classes + 1), bool)
    holds[:, 1:] = until[high] > until[low]
    # There is background unless actions reach from end to end: no event is too far from the next.
    gaps = np.cumsum(np.pad(np.diff(events) > 2 * radius + 1, (1, 0)))  # up to each event
    some = high > low
    holds[:, 0] = ~some
    first, last = low[some], high[some] - 1
    holds[some, 0] = (
        (events[first] - firsts[some] > radius)
        | (ends[some] - 1 - events[last] > radius)
        | (gaps[last] > gaps[first])
    )
    return holds
