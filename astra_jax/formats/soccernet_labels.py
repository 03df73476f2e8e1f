"""SoccerNet's label files: the annotations of a match as they stand there."""

import functools
import json
import logging
import operator
import re
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from statistics import median
from typing import Any, NamedTuple

from astra_jax.errors import UserError, reading_error, shown
from astra_jax.files import can_be_a_name

# The half, a dash, minutes and seconds: "1 - 00:29", "2-45:10", "1 - 102:00".
_GAME_TIME = re.compile(r"([1-9])\s*-\s*([0-9]{1,3}):([0-9]{2})")

HALF_SECONDS = 120 * 60
"""So much of a half is in the official metric; what lies later it puts on its last frame."""

# Eleven days in milliseconds: a slip of the keyboard may pass, no arithmetic overflows.
_LATEST = 10**9

# gameTime is cut to a second; official files agree within one.
_AGREE_MS = 2000
# What a position is likely to be counted in, and the highest rate that is named otherwise.
_COMMON_RATES = (1, 2, 5, 10, 12.5, 24000 / 1001, 24, 25, 30000 / 1001, 30, 50, 60000 / 1001, 60)
_HIGHEST_RATE = 250

_log = logging.getLogger(__name__)


class ParsedAnnotation(NamedTuple):
    """What is read of an annotation: half from 1 to 9, milliseconds inside it, label, shown."""

    half: int
    milliseconds: int
    label: str
    shown: bool


def parse_annotation(annotation: Any) -> ParsedAnnotation:
    """Read one dictionary of a label file as the SoccerNet package does.

    The time is `position`, whole milliseconds (15000, 15000.0 or "15000"); where there is none,
    as in files of version 1, it is `gameTime`'s. Without `visibility` an annotation is shown.
    Differs from the package: it takes the first character of any gameTime for the half ("12:15"),
    and only the last two digits of its minutes.
    Raises ValueError, its message naming the key.
    """
    if not isinstance(annotation, Mapping):
        raise ValueError("it is no object with gameTime, label and position")
    for key in ("gameTime", "label"):
        if key not in annotation:
            raise ValueError(f'it has no "{key}"')
    label = annotation["label"]
    if not isinstance(label, str):
        raise ValueError(f'its "label" is {reprlib.repr(label)}, not a string')
    half, milliseconds = _read_game_time(annotation["gameTime"])
    if "position" in annotation:
        milliseconds = _read_position(annotation["position"])
    return ParsedAnnotation(half, milliseconds, label, annotation.get("visibility") != "not shown")


def _read_game_time(game_time: Any) -> tuple[int, int]:
    """The half, and milliseconds of minutes and seconds."""
    found = _GAME_TIME.fullmatch(game_time) if isinstance(game_time, str) else None
    if found is None:
        raise ValueError(
            f'its "gameTime" is {reprlib.repr(game_time)}, not a half (a digit from 1 to 9), a '
            'dash, minutes and seconds, as in "1 - 00:29"'
        )
    half, minutes, seconds = (int(number) for number in found.groups())
    return half, 1000 * (60 * minutes + seconds)


def _read_position(position: Any) -> int:
    try:
        if isinstance(position, str):
            return int(position)
        if isinstance(position, float) and position.is_integer():
            return int(position)
        if not isinstance(position, bool):
            return operator.index(position)  # any library's whole numbers
    except (TypeError, ValueError):
        pass
    raise ValueError(f'its "position" is {reprlib.repr(position)}, not whole milliseconds')


def check_file_name(name: str, given_by: str) -> str:
    """`name`; UserError, naming `given_by`, where no file in a match's folder can be called so."""
    path = PurePosixPath(name)
    inside = path.parts and not path.is_absolute() and ".." not in path.parts
    if not inside or not all(can_be_a_name(part) for part in path.parts):
        raise UserError(
            f"{given_by}: {shown(name)}, it must be the name of a file in each match's folder, "
            "such as Labels-v2.json"
        )
    return name


def read_raw_annotations(
    path: Path, given_by: str = "data.labels_root and data.labels_file"
) -> list[dict[str, Any]]:
    """The annotations of a label file as they stand there, for the metric.

    `parse_annotation` reads every one. Neither labels nor the number of the half are judged here.
    Where most positions of a file lie more than 2 s from their gameTime, the log says once what
    their unit looks like. `given_by` is what the user mends where there is no such file.
    Errors: UserError naming file and entry for a missing file, broken JSON, what
    `parse_annotation` refuses, a time that is negative or later than any half lasts.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise UserError(
            f"{path}: no such label file; download the labels, take the match off the split's "
            f"list, or mend {given_by}"
        ) from error
    except OSError as error:
        raise reading_error(path, error) from error
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
    for number, annotation in enumerate(annotations, start=1):
        try:
            _check_time(parse_annotation(annotation).milliseconds)
        except ValueError as error:
            raise UserError(f"{path}: annotation {number}: {error}; mend it") from error
    if doubt := _doubt_unit(annotations):
        _warn_once(f"{path}: {doubt}")
    return annotations


def describe_others(halves: Iterable[int], periods: Sequence[int], given_by: str) -> str | None:
    """One line about the annotations of other halves than `periods`; None where there are none.

    `halves`: of every annotation. `given_by` is what names the periods that count.
    """
    others = [half for half in halves if half not in periods]
    if not others:
        return None
    numbers = ", ".join(str(half) for half in sorted(set(others)))
    return (
        f"{len(others)} label(s) of period(s) {numbers} left out; {given_by} names those that count"
    )


def _check_time(milliseconds: int) -> None:
    if milliseconds < 0:
        raise ValueError(
            f"it has a negative time ({reprlib.repr(milliseconds)} ms), and positions count from "
            "the start of the half"
        )
    if milliseconds > _LATEST:
        raise ValueError(
            f'its "position" is {reprlib.repr(milliseconds)} ms, later than any half lasts'
        )


def _doubt_unit(annotations: Sequence[Mapping[str, Any]]) -> str | None:
    """What to say where most positions are other times than their gameTimes."""
    times = [
        (_read_position(entry["position"]), _read_game_time(entry["gameTime"])[1])
        for entry in annotations
        if "position" in entry
    ]
    apart = sum(abs(position - clock) > _AGREE_MS for position, clock in times)
    if 2 * apart <= len(times):
        return None
    return (
        f"position and gameTime lie more than {_AGREE_MS // 1000} s apart in {apart} of "
        f"{len(times)} annotation(s): position looks like {_name_unit(times)}, and is read as "
        "milliseconds from the start of the half; mend whichever is wrong"
    )


def _name_unit(times: Sequence[tuple[int, int]]) -> str:
    """The unit in which most positions agree with their gameTimes, (position, milliseconds)."""
    # Nothing has a rate at 00:00.
    seconds = [(position, clock / 1000) for position, clock in times if clock > 0]
    rate = median(position / second for position, second in seconds) if seconds else 0.0

    def error(unit: float) -> float:
        return median(abs(position / unit - second) for position, second in seconds)

    near = [unit for unit in _COMMON_RATES if abs(unit - rate) < rate / 10]
    likely = sorted(near, key=error)[:1] + [round(rate)] * (1 <= rate <= _HIGHEST_RATE)
    for unit in likely:
        if error(unit) <= _AGREE_MS / 1000:
            return "seconds" if unit == 1 else f"frames of {unit:.5g} a second"
    return "a count from elsewhere (no unit fits)"


@functools.cache
def _warn_once(message: str) -> None:
    """To the log, once however often a command reads the file."""
    _log.warning("%s", message)
