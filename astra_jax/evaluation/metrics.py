"""The official SoccerNet-v2 metric, Average-mAP, bug for bug and vectorised.

Source: the behaviour of the SoccerNet package 0.1.62 (`SoccerNet.Evaluation.ActionSpotting`),
which the suite compares with to 1e-9. All visibilities, tolerances and classes come from flat
arrays of a few thousand events and spots; no vector of frames is ever built.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from astra_jax.config.classes import CLASSES
from astra_jax.errors import UserError
from astra_jax.evaluation.frames import FRAMES_PER_SECOND, FrameEvents, parse
from astra_jax.formats.soccernet_results import Prediction

METRICS: dict[str, tuple[int, ...]] = {
    "tight": tuple(range(1, 6)),
    "loose": tuple(range(5, 61, 5)),
    **{f"at{seconds}": (seconds,) for seconds in range(1, 6)},
}
"""Tolerances of each metric in seconds: a spot within half of it, either way, is a hit.

Both times are cut to frames before, 2 a second unless another frame rate is asked for: at 2,
`at1` finds spots up to 0.99 s away.
"""

SUBSETS = ("", "_visible", "_unshown")
"""Endings of a block's keys: every action, those on screen, those not shown."""

Block = dict[str, Any]
"""a_mAP and a_mAP_per_class ({class: value}), each also with _visible and _unshown."""

_THRESHOLDS = np.linspace(0, 1, 200)
_RECALL_LEVELS = np.arange(11) / 10
_UNSHOWN_FACTOR = 17 / 13
"""The package's correction for the four of the 17 classes that are never "not shown"; it belongs to
the mean over the official classes and several tolerances, and other class lists don't get it."""


def average_map(
    labels: Mapping[str, Sequence[Mapping[str, Any]]],
    predictions: Mapping[str, Sequence[Prediction]],
    metric: str,
    classes: Sequence[str] = CLASSES,
    frame_rate: int = FRAMES_PER_SECOND,
    periods: Sequence[int] = (1, 2),
) -> Block:
    """One block of `metrics.json`: the Average-mAP of `predictions` against `labels`.

    labels, predictions: `{match: annotations}` and `{match: predictions}`, dictionaries as in
    Labels-v2.json and results_spotting.json. Matches without labels are not looked at.
    metric: a name of METRICS.
    frame_rate: frames a second of the grid that times are cut to, a whole number. `at1` at 2, the
    package's, is not the ball task's mAP@1: that is `at1` at 25, where a spot 0.98 s from its event
    is a miss and two events in half a second are two.
    periods: the halves that count; entries of others are left out, as in the package.
    Whatever lies later than 120 minutes of its half counts as on the last frame; `late.beyond_grid`
    says how much does.
    Raises UserError for an unknown metric, a match without predictions, malformed entries or a
    frame rate out of range.
    """
    return average_maps(labels, predictions, (metric,), classes, frame_rate, periods)[metric]


def average_maps(
    labels: Mapping[str, Sequence[Mapping[str, Any]]],
    predictions: Mapping[str, Sequence[Prediction]],
    metrics: Sequence[str] = tuple(METRICS),
    classes: Sequence[str] = CLASSES,
    frame_rate: int = FRAMES_PER_SECOND,
    periods: Sequence[int] = (1, 2),
) -> dict[str, Block]:
    """`average_map` of several metrics, `{metric: block}`, parsing and matching once."""
    return score(parse(labels, predictions, classes, frame_rate, periods), metrics)


def score(events: FrameEvents, metrics: Sequence[str] = tuple(METRICS)) -> dict[str, Block]:
    """The blocks of several metrics from parsed input, `{metric: block}`.

    Raises UserError for a metric that METRICS doesn't have.
    """
    for metric in metrics:
        if metric not in METRICS:
            raise UserError(f"metric {metric!r} is unknown; use one of {', '.join(METRICS)}")
    tolerances = sorted({seconds for metric in metrics for seconds in METRICS[metric]})
    precisions = dict(zip(tolerances, average_precisions(events, tolerances), strict=True))
    return {
        metric: _block(np.stack([precisions[s] for s in METRICS[metric]]), events.classes)
        for metric in metrics
    }


def average_precisions(
    events: FrameEvents, tolerances: Sequence[int]
) -> Float[np.ndarray, "tolerance subset class"]:
    """Average precision at each tolerance (seconds), for the subsets of SUBSETS.

    Mean over the recalls 0, 0.1, ..., 1 of the best precision at that recall or more, over 200
    thresholds on the confidence. Whether a spot counts as on screen is decided by the event of
    its class that is closest in its half, whether it is a hit by the matching of all events, so
    a subset's recall can exceed 1.
    """
    actions, bins = len(events.classes), len(_THRESHOLDS) + 1
    # A spot counts at the first `reached` thresholds.
    reached = np.searchsorted(_THRESHOLDS, events.spot_scores, side="right")
    cells = events.spot_classes * bins + reached
    visible = events.closest_visible()

    def counts(keep: Bool[np.ndarray, "spot"]) -> Int[np.ndarray, "subset class threshold"]:
        tables = [
            np.bincount(cells[subset], minlength=actions * bins).reshape(actions, bins)
            for subset in (keep, keep & visible, keep & ~visible)
        ]
        return np.stack(tables)[..., :0:-1].cumsum(axis=-1)[..., ::-1]

    kept = counts(np.ones(len(cells), dtype=bool))
    hits = np.stack([counts(find_hits(events, seconds)) for seconds in tolerances])
    precision = _ratio(hits, kept)
    recall = _ratio(hits, events.event_counts()[..., None])
    best = [np.where(recall >= level, precision, 0.0).max(axis=-1) for level in _RECALL_LEVELS]
    return np.sum(best, axis=0) / len(_RECALL_LEVELS)


def find_hits(events: FrameEvents, tolerance_seconds: int) -> Bool[np.ndarray, "spot"]:
    """Which spots are hits: events in time order each take the best spot still free.

    In reach are the spots at most half the tolerance away: at 2 frames a second as many frames as
    the tolerance has seconds, at 25 a second 12 frames for 1 s; of equal scores the earliest is
    taken. Only events whose reaches overlap can take each other's spot: the k-th events of all
    such chains are served together.
    """
    reach = tolerance_seconds * events.frame_rate // 2
    first = np.searchsorted(events.spot_keys, events.event_keys - reach)
    last = np.searchsorted(events.spot_keys, events.event_keys + reach, side="right")
    first, last = first[first < last], last[first < last]
    hit = np.zeros(len(events.spot_keys), dtype=bool)
    best_first = events.best_spots_first
    rank = np.empty(len(hit), dtype=np.int64)
    rank[best_first] = np.arange(len(hit))
    for turn in _turns(first, last):
        lengths = last[turn] - first[turn]
        offsets = np.cumsum(lengths) - lengths
        in_reach = np.arange(lengths.sum()) + np.repeat(first[turn] - offsets, lengths)
        best = np.minimum.reduceat(rank[in_reach], offsets)
        taken = best_first[best[best < len(hit)]]
        hit[taken] = True
        rank[taken] = len(hit)
    return hit


def _turns(
    first: Int[np.ndarray, "event"], last: Int[np.ndarray, "event"]
) -> list[Int[np.ndarray, "served"]]:
    """Events by their place in a chain of overlapping ranges `[first, last)`, place 0 first."""
    numbers = np.arange(len(first))
    begins = np.ones(len(first), dtype=bool)
    begins[1:] = first[1:] >= last[:-1]
    place = numbers - np.maximum.accumulate(np.where(begins, numbers, 0))
    sizes = np.bincount(place)
    return np.split(np.argsort(place, kind="stable"), np.cumsum(sizes)[:-1]) if len(sizes) else []


def _ratio(
    part: Int[np.ndarray, "tolerance subset class threshold"],
    whole: Int[np.ndarray, "subset class #threshold"],
) -> Float[np.ndarray, "tolerance subset class threshold"]:
    """part / whole, 0 where both are 0."""
    return part / np.maximum(whole, 1)


def _block(
    precisions: Float[np.ndarray, "tolerance subset class"], classes: Sequence[str]
) -> Block:
    """Average over the tolerances (trapezoid rule) and name the values."""
    averages = precisions[0]
    if len(precisions) > 1:
        averages = ((precisions[:-1] + precisions[1:]) / 2).mean(axis=0)
    block: Block = {}
    for subset, values in zip(SUBSETS, averages, strict=True):
        mean = float(values.mean())
        if subset == "_unshown" and len(precisions) > 1 and set(classes) == set(CLASSES):
            mean *= _UNSHOWN_FACTOR
        block[f"a_mAP{subset}"] = mean
        block[f"a_mAP_per_class{subset}"] = {
            name: float(value) for name, value in zip(classes, values, strict=True)
        }
    return block
