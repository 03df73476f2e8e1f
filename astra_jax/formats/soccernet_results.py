"""Spots to and from files: SoccerNet's results.

`OUT/results/league/season/match/results_spotting.json` and the same files in `OUT/results.zip`,
match paths at its root: what SoccerNet's evaluation server and package read.
"""

import contextlib
import errno
import io
import json
import reprlib
import tempfile
import unicodedata
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from astra_jax.errors import UserError, one_line, reading_error
from astra_jax.files import NAME_RULES, can_be_a_name, write_atomically

FILE_NAME = "results_spotting.json"
"""The one file of a match."""

FOLDER_NAME = "results"
ZIP_NAME = "results.zip"

# A half of spots above 1 % is some 100 kB; a zip's member far beyond that is no results file.
_LARGEST_BYTES = 256 * 2**20
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)
# The bit of a zip's member that says that its name is UTF-8.
_UTF8_FLAG = 0x800

Prediction = dict[str, Any]
"""One spot as a results file holds it: gameTime, label, position, half, confidence."""


class ParsedPrediction(NamedTuple):
    """What the metric needs of a prediction, in numbers."""

    half: int
    milliseconds: int
    label: Any
    confidence: float


def parse_prediction(prediction: Any) -> ParsedPrediction:
    """Read one dictionary of a results file as the SoccerNet package does.

    The half is `half`, never `gameTime`. A missing confidence (null) is NaN: never a detection.
    Raises ValueError, its message naming the key, where the package would fail.
    """
    if not isinstance(prediction, Mapping):
        raise ValueError("it is no object with label, position, half and confidence")
    for key in ("position", "label", "half", "confidence"):
        if key not in prediction:
            raise ValueError(f'it has no "{key}"')
    confidence = prediction["confidence"]
    return ParsedPrediction(
        half=_number(int, prediction, "half"),
        milliseconds=_number(int, prediction, "position"),
        label=prediction["label"],
        confidence=float("nan") if confidence is None else _number(float, prediction, "confidence"),
    )


def _number(kind: type, prediction: Mapping[str, Any], key: str) -> Any:
    try:
        return kind(prediction[key])
    except (TypeError, ValueError, OverflowError):
        article = "a whole number" if kind is int else "a number"
        raise ValueError(f'its "{key}" is {reprlib.repr(prediction[key])}, not {article}') from None


def write_results(out_dir: Path, predictions: Mapping[str, Sequence[Prediction]]) -> None:
    """Write `OUT/results/` and `OUT/results.zip` for `{match: predictions}`.

    Both are built under another name and then renamed: neither is ever half-written. The same
    predictions give the same bytes. An earlier results folder is replaced as a whole.
    Raises UserError where that folder holds anything but results, OUT can't be written, or a match
    has a name that no file can have, or another one's.
    """
    out_dir = Path(out_dir)
    content: dict[str, bytes] = {}
    for match, spots in predictions.items():
        member = _member(match)
        if not all(can_be_a_name(part) for part in PurePosixPath(match).parts):
            raise UserError(f"match {match!r} is no folder's name: one has {NAME_RULES}; rename it")
        if member in content:
            raise UserError(f"match {match!r}: another one has this folder; name it once")
        content[member] = _encode(match, spots)
    folder = out_dir / FOLDER_NAME
    _check_replaceable(folder)
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out_dir, prefix=".results-") as scratch:
            built = Path(scratch) / "new"
            built.mkdir()
            for name, data in content.items():
                (built / name).parent.mkdir(parents=True, exist_ok=True)
                (built / name).write_bytes(data)
            # Whole before anything is replaced: a full disk leaves both as they were.
            archive = Path(scratch) / ZIP_NAME
            write_atomically(archive, _zip(content))
            if folder.exists():
                folder.rename(Path(scratch) / "old")
            built.rename(folder)
            archive.replace(out_dir / ZIP_NAME)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise UserError(
            f"{out_dir}: results cannot be written ({error.strerror or error}); choose another "
            f"place or {'free some space' if full else 'mend its rights'}"
        ) from error


def _encode(match: str, predictions: Sequence[Prediction]) -> bytes:
    content = {"UrlLocal": match, "predictions": list(predictions)}
    # What UTF-8 doesn't have, half a character, is written as JSON spells it: \ud800.
    text = json.dumps(content, ensure_ascii=False, indent=1) + "\n"
    return text.encode(errors="backslashreplace")


def _zip(content: Mapping[str, bytes]) -> bytes:
    """A zip whose bytes depend on the content alone: sorted, no times, fixed rights."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name in sorted(content):
            info = zipfile.ZipInfo(name, date_time=_ZIP_TIME)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.create_system = 3  # Unix, wherever this runs
            info.external_attr = 0o644 << 16
            archive.writestr(info, content[name])
    return buffer.getvalue()


def _check_replaceable(folder: Path) -> None:
    """Refuse to replace a folder that somebody keeps other things in."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise UserError(f"{folder}: is no plain folder; move it away or choose another output")
    for path in folder.rglob("*"):
        if not path.is_dir() and path.name != FILE_NAME:
            raise UserError(
                f"{path}: not a results file, and {folder} would be replaced; move it away or "
                "choose another output"
            )


def _member(match: str) -> str:
    """The file of a match below a results folder or a zip's root; refuses paths that climb."""
    parts = PurePosixPath(match).parts
    if not parts or PurePosixPath(match).is_absolute() or ".." in parts or "\\" in match:
        raise UserError(f"match {match!r} must be league/season/match, with forward slashes")
    return str(PurePosixPath(match) / FILE_NAME)


def read_predictions(path: Path, matches: Sequence[str]) -> dict[str, list[Prediction]]:
    """The predictions of each match, from a results folder or a zip, as they stand there.

    A zip is read member by member under names that come from `matches`; nothing is unpacked. Where
    none has just that name, names as other systems write them are understood: backslashes, a
    leading "./", UTF-8 without its flag, letters taken apart from their accents.
    Raises UserError naming the file for a missing, broken or wrongly built one.
    """
    path = Path(path)
    if path.is_dir():
        return {match: _read_folder(path, match) for match in matches}
    if not path.exists():
        raise UserError(f"{path}: no such folder or zip of results; mend --predictions")
    try:
        archive = zipfile.ZipFile(path)
    except Exception as error:  # whatever zipfile's parts raise where a damaged one misleads them
        raise UserError(
            f"{path}: neither a folder nor a readable zip of results ({one_line(error)}); write it "
            "again"
        ) from error
    with archive:
        members = {_plain_name(info): info for info in archive.infolist()}
        # Of several spellings of one name its own counts, as for the package.
        members |= {info.filename: info for info in archive.infolist()}
        return {match: _read_member(path, archive, members, match) for match in matches}


def _read_folder(folder: Path, match: str) -> list[Prediction]:
    file = folder / _member(match)
    try:
        data = file.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        nested = folder / FOLDER_NAME
        mend = (
            f"did you mean {nested}?"
            if (nested / _member(match)).is_file()
            else "predict this match too, or take it off the list of matches"
        )
        raise UserError(f"{file}: no such results file; {mend}") from error
    except OSError as error:
        raise reading_error(file, error) from error
    except ValueError as error:
        raise UserError(f"match {match!r} is no folder's name; mend the list of matches") from error
    return _decode(str(file), data)


def _plain_name(info: zipfile.ZipInfo) -> str:
    """A member's name as Linux writes it."""
    name = info.filename
    if not info.flag_bits & _UTF8_FLAG:
        # zipfile took it for the alphabet of DOS, in which nearly no UTF-8 makes sense.
        with contextlib.suppress(UnicodeError):
            name = name.encode("cp437").decode("utf-8")
    return _composed(str(PurePosixPath(name.replace("\\", "/"))))


def _composed(name: str) -> str:
    """Letters and their accents as one character each; macOS takes them apart."""
    return unicodedata.normalize("NFC", name)


def _read_member(
    path: Path, archive: zipfile.ZipFile, members: Mapping[str, zipfile.ZipInfo], match: str
) -> list[Prediction]:
    name = _member(match)
    where = f"{path}: {name}"
    info = members.get(name) or members.get(_composed(name))
    if info is None:
        raise UserError(
            f"{where} is missing; predict this match too, take it off the list of matches, or "
            "put the match paths at the zip's root"
        )
    try:
        with archive.open(info) as member:
            data = member.read(_LARGEST_BYTES + 1)
    # A password, an unknown compression, damage: every part of zipfile raises its own.
    except Exception as error:
        raise UserError(
            f"{where} cannot be read ({one_line(error)}); write the zip again"
        ) from error
    if len(data) > _LARGEST_BYTES:
        raise UserError(f"{where} is larger than {_LARGEST_BYTES} bytes: no results file")
    return _decode(where, data)


def _decode(where: str, data: bytes) -> list[Prediction]:
    try:
        content = json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: is not UTF-8 text; write it again") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: broken JSON ({error}); write it again") from error
    predictions = content.get("predictions") if isinstance(content, dict) else None
    if not isinstance(predictions, list):
        raise UserError(f'{where}: has no list "predictions"; is it a {FILE_NAME}?')
    for index, prediction in enumerate(predictions):
        try:
            parse_prediction(prediction)
        except ValueError as error:
            raise UserError(f"{where}: prediction {index + 1}: {error}; mend it") from error
    return predictions
