"""Label files: the annotated events of a match."""

import json
import logging
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Int

from astra_jax.errors import UserError

HALVES = (1, 2)
# Eleven days in milliseconds: a slip of the keyboard may pass, no arithmetic overflows.
_LATEST = 10**9
UnknownLabels = Literal["error", "skip"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Events:
    """Events of one half in order of time: milliseconds inside the half, action (0-based), shown.

    `visible` is False where the label file says "not shown".
    """

    milliseconds: Int[np.ndarray, "event"]
    classes: Int[np.ndarray, "event"]
    visible: Bool[np.ndarray, "event"]

    @classmethod
    def none(cls) -> "Events":
        """No event at all."""
        return cls(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, bool))

    def __len__(self) -> int:
        return len(self.milliseconds)

    def select(self, keep: Bool[np.ndarray, "event"]) -> "Events":
        """The events where `keep` is True."""
        return Events(self.milliseconds[keep], self.classes[keep], self.visible[keep])


def read_raw_annotations(path: Path) -> list[dict[str, Any]]:
    """The annotations of a label file as they stand there, for the metric.

    Every one has `gameTime` (its first character is the half), `label` and `position`
    (milliseconds inside the half, a string of digits or an int). Labels are not judged here.
    Errors: UserError naming file and entry for a missing file, broken JSON, a missing key, a half
    other than 1 and 2, a position that is no number, negative or beyond any half.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise UserError(
            f"{path}: no such label file; download the labels, take the match off the split's "
            "list, or mend data.labels_root and data.labels_file"
        ) from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path}: broken JSON at line {error.lineno}, column {error.colno} ({error.msg}); "
            "mend or download it again"
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text; download it again") from error
    except (ValueError, RecursionError) as error:  # numbers too long, lists too deep for Python
        raise UserError(f"{path}: no label file ({error}); download it again") from error
    annotations = content.get("annotations") if isinstance(content, dict) else None
    if not isinstance(annotations, list):
        raise UserError(f'{path}: has no list "annotations"; is it a SoccerNet label file?')
    for index, annotation in enumerate(annotations):
        _check(annotation, f"{path}: annotation {index + 1}")
    return annotations


def _check(annotation: Any, where: str) -> None:
    if not isinstance(annotation, dict):
        raise UserError(f"{where} is not an object with gameTime, label and position")
    for key in ("gameTime", "label", "position"):
        if key not in annotation:
            raise UserError(f'{where} has no "{key}"; add it')
    if not isinstance(annotation["label"], str):
        raise UserError(f"{where} has a label that is no string: {annotation['label']!r}")
    game_time, position = annotation["gameTime"], annotation["position"]
    if not isinstance(game_time, str) or game_time[:1] not in {str(half) for half in HALVES}:
        raise UserError(
            f"{where} has gameTime {game_time!r}: its half (first character) must be 1 or 2, as "
            'in "1 - 00:29"'
        )
    try:
        if isinstance(position, bool) or not isinstance(position, int | str):
            raise ValueError
        milliseconds = int(position)
    except ValueError:
        raise UserError(
            f"{where} has position {reprlib.repr(position)}, it must be whole milliseconds"
        ) from None
    if milliseconds < 0:
        raise UserError(
            f"{where} has a negative time ({milliseconds} ms); positions count from the start "
            "of the half"
        )
    if milliseconds > _LATEST:
        raise UserError(
            f"{where} has position {reprlib.repr(position)}, later than any half lasts; mend it"
        )


def read_annotations(
    path: Path, classes: Sequence[str], unknown_labels: UnknownLabels = "error"
) -> dict[int, Events]:
    """The events of halves 1 and 2 of one label file, each half in order of time.

    An annotation without `visibility` counts as visible. Labels outside `classes` are an error or,
    with "skip", left out with one line in the log.
    Errors: UserError as `read_raw_annotations`, and for an unknown label.
    """
    action = {label: index for index, label in enumerate(classes)}
    found: dict[int, list[tuple[int, int, bool]]] = {half: [] for half in HALVES}
    skipped = 0
    for index, annotation in enumerate(read_raw_annotations(path)):
        label = annotation["label"]
        if label not in action:
            if unknown_labels == "error":
                raise UserError(
                    f"{path}: annotation {index + 1} has the unknown label {label!r}; mend it, "
                    "add it to data.classes or set data.unknown_labels to 'skip'"
                )
            skipped += 1
            continue
        shown = annotation.get("visibility", "visible") != "not shown"
        half = int(annotation["gameTime"][0])
        found[half].append((int(annotation["position"]), action[label], shown))
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
