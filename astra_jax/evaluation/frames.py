"""Events and spots on the official metric's grid: two hours a half, as a rule two frames a second.

Source: the behaviour of the SoccerNet package 0.1.62 (`label2vector`, `predictions2vector`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from astra_jax.errors import UserError
from astra_jax.formats.soccernet_labels import HALF_SECONDS, parse_annotation
from astra_jax.formats.soccernet_results import parse_prediction

FRAMES_PER_SECOND = 2
"""The package's own frame rate; the ball task's mAP@1 is counted at 25."""

HIGHEST_FRAME_RATE = 1000
"""A frame a millisecond: positions are not finer."""


@dataclass(frozen=True, eq=False)
class FrameEvents:
    """All events and spots of some halves, each kind sorted by class, half and frame.

    A key is `(class * halves + half) * stride + frame`; keys of a kind are distinct.
    classes: names in the order of the class index.
    frame_rate: frames a second.
    event_visible: False where an event is "not shown".
    spot_scores: confidences, none negative or NaN.
    """

    classes: tuple[str, ...]
    halves: int
    frame_rate: int
    event_keys: Int[np.ndarray, "event"]
    event_visible: Bool[np.ndarray, "event"]
    spot_keys: Int[np.ndarray, "spot"]
    spot_scores: Float[np.ndarray, "spot"]

    @property
    def stride(self) -> int:
        """How far halves and classes lie apart on the number line of the keys."""
        return _stride(self.frame_rate)

    @property
    def spot_classes(self) -> Int[np.ndarray, "spot"]:
        """Class index of each spot."""
        return self.spot_keys // (self.stride * self.halves)

    @cached_property
    def best_spots_first(self) -> Int[np.ndarray, "spot"]:
        """Spots by falling score, the earliest first on a tie."""
        return np.argsort(-self.spot_scores, kind="stable")

    def event_counts(self) -> Int[np.ndarray, "subset class"]:
        """Events of each class: all, visible, not shown."""
        classes = self.event_keys // (self.stride * self.halves)
        total = np.bincount(classes, minlength=len(self.classes))
        visible = np.bincount(classes[self.event_visible], minlength=len(self.classes))
        return np.stack([total, visible, total - visible])

    def closest_visible(self) -> Bool[np.ndarray, "spot"]:
        """Whether the event of its class closest to a spot in its half is visible.

        Event i of sorted frames g owns the frames `[(g_{i-1} + g_i) // 2, (g_i + g_{i+1}) // 2)`,
        the first from 0, the last to the end; of events on adjacent frames the later one owns
        both. A half without the class counts as not shown.
        """
        if not len(self.event_keys):
            return np.zeros(len(self.spot_keys), dtype=bool)
        groups, frames = np.divmod(self.event_keys, self.stride)
        starts = groups * self.stride
        follows = groups[1:] == groups[:-1]
        starts[1:] += np.where(follows, (frames[1:] + frames[:-1]) // 2, 0)
        owner = np.searchsorted(starts, self.spot_keys, side="right") - 1
        owned = (owner >= 0) & (groups[owner] == self.spot_keys // self.stride)
        return owned & self.event_visible[owner]


def parse(
    labels: Mapping[str, Sequence[Mapping[str, Any]]],
    predictions: Mapping[str, Sequence[Mapping[str, Any]]],
    classes: Sequence[str],
    frame_rate: int = FRAMES_PER_SECOND,
    periods: Sequence[int] = (1, 2),
) -> FrameEvents:
    """Put the annotations and predictions of every labelled match on the grid.

    labels, predictions: as in `metrics.average_map`. frame_rate: whole frames a second.
    Unknown labels and halves other than `periods` are skipped, frames past the end moved to the
    last one, negative ones counted from the end; of entries on one frame and class the last one
    stays, whatever its confidence.
    Raises UserError for no match at all, a match without predictions, a malformed entry, or a
    frame rate that is no whole number from 1 to HIGHEST_FRAME_RATE.
    """
    if not isinstance(frame_rate, int) or not 1 <= frame_rate <= HIGHEST_FRAME_RATE:
        raise UserError(
            f"frame rate {frame_rate}: must be a whole number from 1 to {HIGHEST_FRAME_RATE}"
        )
    if not labels:
        raise UserError("there is no labelled match to score; name at least one")
    actions = {name: action for action, name in enumerate(classes)}
    places = {period: place for place, period in enumerate(dict.fromkeys(periods))}
    halves, stride = len(places) * len(labels), _stride(frame_rate)
    events: list[tuple[int, float]] = []
    spots: list[tuple[int, float]] = []
    for number, (match, annotations) in enumerate(labels.items()):
        if match not in predictions:
            raise UserError(
                f"match {match}: has no predictions; predict it, or score the other matches only"
            )
        for kind, entries, read, rows in (
            ("annotation", annotations, _read_annotation, events),
            ("prediction", predictions[match], _read_prediction, spots),
        ):
            for entry_number, entry in enumerate(entries, start=1):
                try:
                    half, milliseconds, label, value = read(entry)
                    action = actions.get(label) if isinstance(label, str) else None
                    if action is None or half not in places:
                        continue
                    group = action * halves + number * len(places) + places[half]
                    rows.append((group * stride + _frame(milliseconds, frame_rate), value))
                except (ValueError, OverflowError) as error:
                    raise UserError(
                        f"match {match}: {kind} {entry_number}: {error}; mend it"
                    ) from error
    columns = *_columns(events), *_columns(spots)
    return _sort(tuple(classes), halves, frame_rate, *columns)


def from_vectors(
    targets: Sequence[Float[np.ndarray, "frame class"]],
    detections: Sequence[Float[np.ndarray, "frame class"]],
    classes: Sequence[str],
) -> FrameEvents:
    """The same from the package's own dense vectors at its own frame rate, one of each a half.

    targets: 1 an event, -1 one that is not shown, 0 none. detections: confidences, -1 none.
    Raises ValueError where the two differ in number.
    """
    keys: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    values: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    stride = _stride(FRAMES_PER_SECOND)
    for half, pair in enumerate(zip(targets, detections, strict=True)):
        for kind, vector in enumerate(pair):
            flat = vector.ravel()
            # Compared first: NumPy searches booleans ten times as fast as floats.
            places = np.flatnonzero(flat >= 0 if kind else flat != 0)
            frames, actions = np.divmod(places, vector.shape[1])
            keys[kind].append((actions * len(targets) + half) * stride + frames)
            values[kind].append(flat[places])
    events, spots = ((np.concatenate(keys[k]), np.concatenate(values[k])) for k in (0, 1))
    return _sort(tuple(classes), len(targets), FRAMES_PER_SECOND, *events, *spots)


def _read_annotation(annotation: Mapping[str, Any]) -> tuple[int, int, Any, float]:
    """Half, milliseconds, label and visibility (1, or -1 where not shown) of a label."""
    parsed = parse_annotation(annotation)
    return parsed.half, parsed.milliseconds, parsed.label, 1.0 if parsed.shown else -1.0


def _read_prediction(prediction: Mapping[str, Any]) -> tuple[int, int, Any, float]:
    parsed = parse_prediction(prediction)
    return parsed.half, parsed.milliseconds, parsed.label, parsed.confidence


def _stride(frame_rate: int) -> int:
    """Twice the frames of a half, so that no tolerance, up to a minute, reaches into the next."""
    return 2 * HALF_SECONDS * frame_rate


def _frame(milliseconds: int, frame_rate: int) -> int:
    frames = HALF_SECONDS * frame_rate
    # In floats, as the package: 290 ms at 100 frames a second are frame 28.
    frame = min(int(frame_rate * (milliseconds / 1000)), frames - 1)
    if frame < -frames:
        raise ValueError(f"position {milliseconds} ms lies more than two hours before the half")
    return frame % frames


def _columns(
    rows: Sequence[tuple[int, float]],
) -> tuple[Int[np.ndarray, "row"], Float[np.ndarray, "row"]]:
    keys, values = zip(*rows, strict=True) if rows else ((), ())
    return np.array(keys, dtype=np.int64), np.array(values, dtype=np.float64)


def _sort(
    classes: tuple[str, ...],
    halves: int,
    frame_rate: int,
    event_keys: Int[np.ndarray, "event_row"],
    event_values: Float[np.ndarray, "event_row"],
    spot_keys: Int[np.ndarray, "spot_row"],
    spot_values: Float[np.ndarray, "spot_row"],
) -> FrameEvents:
    event_keys, event_values = _last_of_each(event_keys, event_values)
    spot_keys, spot_values = _last_of_each(spot_keys, spot_values)
    # After the last one was taken: a negative one hides an earlier detection. NaN is none.
    detected = spot_values >= 0
    return FrameEvents(
        classes=classes,
        halves=halves,
        frame_rate=frame_rate,
        event_keys=event_keys,
        event_visible=event_values > 0,
        spot_keys=spot_keys[detected],
        spot_scores=spot_values[detected],
    )


def _last_of_each(
    keys: Int[np.ndarray, "row"], values: Float[np.ndarray, "row"]
) -> tuple[Int[np.ndarray, "kept"], Float[np.ndarray, "kept"]]:
    """Sorted distinct keys, each with the value that came last."""
    order = np.argsort(keys, kind="stable")
    keys, values = keys[order], values[order]
    last = np.append(keys[1:] != keys[:-1], np.ones(min(len(keys), 1), dtype=bool))
    return keys[last], values[last]
