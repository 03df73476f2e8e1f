"""Clips of halves: what the model is given and what it should answer, as dicts of arrays.

A clip example is `{"features": (Float32[row column], ...) one a source, "log_mel":
Float32[frame mel] in decibels, "masks": {"features": (Bool[row], ...), "log_mel": Bool[frame]},
"class_targets": Float32[position class], "displacements": likewise, "displacement_mask":
Bool[position class]}`. Masks are True where data is present; both `log_mel` keys are absent where
the data set has no audio. A batch has a leading axis everywhere.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool

from astra_jax.data.audio import power_to_db
from astra_jax.data.halves import Half
from astra_jax.data.targets import Targets, TargetSpec, clip_targets
from astra_jax.data.time import Exact, index_at, indices_at, steps_of


def read_inputs(half: Half, start_seconds: Exact, clip_seconds: Exact) -> dict[str, Any]:
    """Features, log-mel and masks of the clip at `start_seconds` of a half.

    Each source begins with the row that the start lies in (`data.time`). Past the half's end the
    last row and frame repeat; absent data is zeros (the floor, for log-mel) with a False mask.
    Errors: UserError for files that changed or hold NaN.
    """
    values, masks = [], []
    for index, source in enumerate(half.spec.sources):
        rate = source.rows_per_second
        rows, present = half.read_source(
            index, index_at(start_seconds, rate), steps_of(clip_seconds, rate)
        )
        values.append(rows)
        masks.append(present)
    inputs: dict[str, Any] = {"features": tuple(values), "masks": {"features": tuple(masks)}}
    if (audio := half.spec.audio) is not None:
        power, present = half.read_mel_power(
            index_at(start_seconds, audio.frames_per_second),
            steps_of(clip_seconds, audio.frames_per_second),
        )
        inputs["log_mel"] = power_to_db(power, audio.floor_db)
        inputs["masks"]["log_mel"] = present
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


def read_clip(half: Half, start_seconds: Exact, spec: TargetSpec) -> dict[str, Any]:
    """The clip example at `start_seconds` of a half. Errors as `read_inputs`."""
    targets = read_targets(half, start_seconds, spec)
    return {
        **read_inputs(half, start_seconds, spec.clip_seconds),
        "class_targets": targets.class_targets,
        "displacements": targets.displacements,
        "displacement_mask": targets.displacement_mask,
    }


def classes_in_clips(
    halves: Sequence[Half], starts: Sequence[Sequence[Exact]], spec: TargetSpec
) -> Bool[np.ndarray, "clip class"]:
    """Which classes (column 0: background) the targets of every clip hold, halves in order."""
    return np.array(
        [
            read_targets(half, start, spec).class_targets.any(axis=0)
            for half, clips in zip(halves, starts, strict=True)
            for start in clips
        ]
    ).reshape(-1, spec.num_classes + 1)
