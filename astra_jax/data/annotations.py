"""Label files: the annotated events of a match."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int

from astra_jax.errors import UserError, one_line
from astra_jax.formats.soccernet_labels import parse_annotation, read_raw_annotations

UnknownLabels = Literal["error", "skip"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Events:
    """Events of one half in order of time: milliseconds inside the half, action (0-based), shown.

    `visible` is False where the label file says "not shown".
    """

    milliseconds: Int[np.ndarray, "event"]
    class_ids: Int[np.ndarray, "event"]
    visible: Bool[np.ndarray, "event"]

    @classmethod
    def none(cls) -> "Events":
        """No event at all."""
        return cls(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, bool))

    def __len__(self) -> int:
        return len(self.milliseconds)

    def select(self, keep: Bool[np.ndarray, "event"]) -> "Events":
        """The events where `keep` is True."""
        return Events(self.milliseconds[keep], self.class_ids[keep], self.visible[keep])


def read_annotations(
    path: Path,
    classes: Sequence[str],
    unknown_labels: UnknownLabels = "error",
    periods: Sequence[int] = (1, 2),
    others: list[int] | None = None,
) -> dict[int, Events]:
    """The events of each of `periods` in one label file, in order of time.

    An annotation without `visibility` counts as visible. Those of other periods are left out;
    `others` gets the half of each, for one line about all files. Labels outside `classes` are an
    error or, with "skip", left out with one line in the log.
    Errors: UserError as `read_raw_annotations`, and for an unknown label.
    """
    action = {label: index for index, label in enumerate(classes)}
    found: dict[int, list[tuple[int, int, bool]]] = {period: [] for period in periods}
    skipped = 0
    for index, annotation in enumerate(read_raw_annotations(path)):
        half, milliseconds, label, shown = parse_annotation(annotation)
        if half not in found:
            if others is not None:
                others.append(half)
            continue
        if label not in action:
            if unknown_labels == "error":
                raise UserError(
                    f"{path}: annotation {index + 1} has the unknown label "
                    f"{one_line(repr(label))}; mend it, add it to data.classes or set "
                    "data.unknown_labels to 'skip'"
                )
            skipped += 1
            continue
        found[half].append((milliseconds, action[label], shown))
    if skipped:
        _log.warning("%s: %d annotation(s) with unknown labels skipped", path, skipped)
    return {half: _events(rows) for half, rows in found.items()}


def _events(rows: list[tuple[int, int, bool]]) -> Events:
    rows = sorted(rows, key=lambda row: row[0])  # stable: the file's order where times are equal
    return Events(
        np.array([row[0] for row in rows], np.int64),
        np.array([row[1] for row in rows], np.int64),
        np.array([row[2] for row in rows], bool),
    )
