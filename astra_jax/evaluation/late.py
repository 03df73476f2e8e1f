"""What lies later than the two hours of a half that the official metric's grid has."""

from collections.abc import Mapping, Sequence
from typing import Any

from astra_jax.errors import join_some
from astra_jax.formats.soccernet_labels import HALF_SECONDS, parse_annotation
from astra_jax.formats.soccernet_results import parse_prediction

_NAMED = 3


def beyond_grid(
    labels: Mapping[str, Sequence[Mapping[str, Any]]],
    predictions: Mapping[str, Sequence[Mapping[str, Any]]],
    periods: Sequence[int] = (1, 2),
) -> dict[str, tuple[int, int]]:
    """How many labels and spots of each match lie 120 minutes or later in one of `periods`.

    labels, predictions: as in `metrics.average_map`; entries of any class are counted, matches
    without such entries left out.
    """
    late = {}
    for match in dict.fromkeys((*labels, *predictions)):
        times = (
            [parse_annotation(label)[:2] for label in labels.get(match, ())],
            [parse_prediction(spot)[:2] for spot in predictions.get(match, ())],
        )
        counts = [
            sum(half in periods and ms >= 1000 * HALF_SECONDS for half, ms in of) for of in times
        ]
        if any(counts):
            late[match] = (counts[0], counts[1])
    return late


def describe_late(late: Mapping[str, tuple[int, int]]) -> str:
    """One line about what `beyond_grid` found; the first matches by name."""
    named = [
        f"{match} ({events} label(s), {spots} spot(s))" for match, (events, spots) in late.items()
    ]
    return (
        f"later than {HALF_SECONDS // 60} minutes of a half: {join_some(named, _NAMED)}; the "
        "official metric puts them all on one frame, the half's last. If no recording is that "
        "long, rows_per_second was wrong when they were predicted"
    )
