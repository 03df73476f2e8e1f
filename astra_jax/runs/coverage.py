"""Labels that nothing can spot: of halves without files, which the official score counts all the
same, and of halves that don't count.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from astra_jax.data.halves import Half
from astra_jax.data.sources import DataSpec
from astra_jax.formats.soccernet_labels import describe_others, parse_annotation

Labels = Mapping[str, Sequence[Mapping[str, Any]]]
"""The annotations of each match, as they stand in its label file."""

_log = logging.getLogger(__name__)


def covered_labels(labels: Labels, halves: Sequence[Half]) -> dict[str, list[Mapping[str, Any]]]:
    """The annotations that lie in one of the halves; every match is still there."""
    files = {(half.match, half.half) for half in halves}
    return {
        match: [row for row in rows if (match, parse_annotation(row).half) in files]
        for match, rows in labels.items()
    }


def warn_of_uncovered(labels: Labels, halves: Sequence[Half], spec: DataSpec) -> int:
    """How many labels that the metric counts lie in no half that has files; one line says so."""
    uncovered = _count(labels, spec) - _count(covered_labels(labels, halves), spec)
    if uncovered:
        _log.warning(
            "%d of %d label(s) lie in halves without files: the official score counts them as "
            "missed",
            uncovered,
            _count(labels, spec),
        )
    return uncovered


def warn_of_other_periods(labels: Labels, spec: DataSpec) -> None:
    """One line where labels lie in halves that don't count (`data.periods`)."""
    halves = [parse_annotation(row).half for rows in labels.values() for row in rows]
    if line := describe_others(halves, spec.periods, "data.periods"):
        _log.warning("%s", line)


def _count(labels: Labels, spec: DataSpec) -> int:
    parsed = (parse_annotation(row) for rows in labels.values() for row in rows)
    return sum(row.half in spec.periods and row.label in spec.classes for row in parsed)
