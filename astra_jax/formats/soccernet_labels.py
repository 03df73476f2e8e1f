"""SoccerNet's label files: the annotations of a match as they stand there."""

import json
import reprlib
from pathlib import Path
from typing import Any

from astra_jax.errors import UserError

HALVES = (1, 2)


# Eleven days in milliseconds: a slip of the keyboard may pass, no arithmetic overflows.
_LATEST = 10**9


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
