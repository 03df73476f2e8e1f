"""The SoccerNet layout: class list, splits, matches, halves, feature sources, annotations.

The only place that knows where a file lies. `ROOT/league/season/match/` holds a label file and,
for each half, one file a source and one of mel power; the three kinds may have a root each.
"""

import logging
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path, PurePosixPath

from astra_jax.data.annotations import (
    HALVES,
    Events,
    UnknownLabels,
    read_annotations,
    read_raw_annotations,
)
from astra_jax.data.arrays import ArrayFile, open_array
from astra_jax.data.clock import Clock
from astra_jax.data.halves import TAIL_SECONDS, Half
from astra_jax.data.specs import AudioSpec, DataSpec, SourceSpec
from astra_jax.errors import UserError

__all__ = [
    "CLASSES",
    "HALVES",
    "SPLITS",
    "ArrayFile",
    "AudioSpec",
    "DataSpec",
    "Events",
    "Half",
    "SourceSpec",
    "UnknownLabels",
    "check_roots",
    "index_halves",
    "load_split",
    "read_annotations",
    "read_raw_annotations",
]

CLASSES: tuple[str, ...] = (
    "Penalty",
    "Kick-off",
    "Goal",
    "Substitution",
    "Offside",
    "Shots on target",
    "Shots off target",
    "Clearance",
    "Ball out of play",
    "Throw-in",
    "Foul",
    "Indirect free-kick",
    "Direct free-kick",
    "Corner",
    "Yellow card",
    "Red card",
    "Yellow->red card",
)
"""The 17 classes in the official order; the model's class 0 is background, action c is c + 1."""

SPLITS: tuple[str, ...] = ("train", "valid", "test", "challenge")
"""SoccerNet-v2's official lists of matches, shipped with the package."""

_LONGEST_NAME = 255

_log = logging.getLogger(__name__)


def load_split(
    name_or_path: str, root: Path | str | None = None, given_by: str = "data.splits"
) -> tuple[str, ...]:
    """The matches of a shipped list (a name of SPLITS) or of a text file, in the file's order.

    One `league/season/match` a line; blank lines and lines that begin with # are skipped. A path
    counts from the current folder, or from `root` where it is not there. A slice behind the
    name takes a part: `train.txt[:70]`, `train.txt[-10:]`; a + between names puts lists together:
    `train+valid`. `given_by` is what the user mends where there is no such list.
    Errors: UserError for a missing, unreadable or empty list, a match listed twice, a path that is
    absolute, holds a backslash or climbs with "..".
    """
    # A file's own name may hold a +. (os.path: neither function fails, whatever the name.)
    file = re.sub(r"\[-?\d*:-?\d*\]$", "", name_or_path)
    places = (file, os.path.join(root or "", file))
    whole = any(os.path.isfile(os.path.expanduser(place)) for place in places)
    matches: list[str] = []
    for part in [name_or_path] if whole else name_or_path.split("+"):
        of_part = _load_list(part, root, given_by)
        if again := set(matches).intersection(of_part):
            raise UserError(f"{name_or_path}: {part} lists {min(again)!r} again; remove it")
        matches.extend(of_part)
    return tuple(matches)


def _load_list(name_or_path: str, root: Path | str | None, given_by: str) -> list[str]:
    """One list, or a slice of it."""
    sliced = re.fullmatch(r"(.*)\[(-?\d*):(-?\d*)\]", name_or_path)
    name, first, last = sliced.groups() if sliced else (name_or_path, "", "")
    part = slice(*(int(number) if number.strip("-") else None for number in (first, last)))
    matches = _listed(_split_text(name, root, given_by), name)[part]
    if not matches:
        raise UserError(f"{name_or_path}: lists no match; add one league/season/match a line")
    return matches


def _split_text(name: str, root: Path | str | None, given_by: str) -> str:
    if name in SPLITS:
        shipped = resources.files("astra_jax.data") / "splits" / f"{name}.txt"
        return shipped.read_text(encoding="utf-8")
    try:
        path = Path(name).expanduser()
        if root is not None and not path.exists():
            path = Path(root).expanduser() / name
        return path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError, RuntimeError) as error:  # too long, not UTF-8, no such home
        below = "" if root is None else ", here or below data.root"
        raise UserError(
            f"{name}: neither a shipped split ({', '.join(SPLITS)}) nor a "
            f"readable text file with one league/season/match a line{below}; mend {given_by}"
        ) from error


def _listed(text: str, name_or_path: str) -> list[str]:
    matches: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.strip().startswith("#"):
            continue
        # Two spellings of one folder (a//b/./c/ and a/b/c) are one match.
        path = PurePosixPath(line.strip())
        match = str(path)
        if "\\" in match or path.is_absolute() or ".." in path.parts or not path.parts:
            raise UserError(
                f"{name_or_path}: line {number}, {match!r}, must be league/season/match below the "
                "data root, with forward slashes"
            )
        if "\0" in match or max(len(part.encode()) for part in path.parts) > _LONGEST_NAME:
            raise UserError(
                f"{name_or_path}: line {number} is no folder's name: one has at most "
                f"{_LONGEST_NAME} bytes between two slashes; mend it"
            )
        if match in matches:
            raise UserError(f"{name_or_path}: line {number} lists {match!r} again; remove it")
        matches.append(match)
    return matches


def index_halves(spec: DataSpec, matches: Sequence[str], labelled: bool = True) -> list[Half]:
    """Every half of the matches, in order, from headers and label files alone (no data is read).

    A half is as long as its longest source (its audio, where it has no source). A source or audio
    that is absent or short is logged once and masked when read; one absent in every half is an
    error. So is a file more than 5 s longer than the rest: audio beside the sources, or a source
    where two or more other files of the half agree on a shorter length (of two sources alone,
    nothing tells whether one is long or the other one short: it counts as short).
    Events past the end of their half are left out, with a line in the log.
    With labelled=False no label file is opened and halves have no events.
    Errors: UserError naming the root, match, file or config key and the mend.
    """
    check_roots(spec, labelled)
    halves = []
    for match in matches:
        _check_folders(spec, match, labelled)
        events = {half: Events.none() for half in HALVES}
        if labelled:
            labels = spec.labels_root / match / spec.labels_file
            events = read_annotations(labels, spec.classes, spec.unknown_labels)
        found = [_index_half(spec, match, half) for half in HALVES]
        halves += [replace(half, events=_inside(events[half.half], half.seconds)) for half in found]
        if late := sum(len(events[half.half]) - len(half.events) for half in halves[-2:]):
            _log.warning("%s: %d event(s) past the end of their half left out", match, late)
    _check_presence(spec, halves)
    return halves


def _inside(events: Events, seconds: float) -> Events:
    return events.select(events.milliseconds < seconds * 1000)


def check_roots(spec: DataSpec, labelled: bool) -> None:
    """Raises UserError where one of the roots that will be read is no folder."""
    roots = {"features_root": spec.features_root} if spec.has_features else {}
    if labelled:
        roots["labels_root"] = spec.labels_root
    if spec.audio is not None:
        roots["audio_root"] = spec.audio_root
    for key, root in roots.items():
        if not root.is_dir():
            raise UserError(
                f"{root}: no such folder (data.root or data.{key}); pass --config.data.root=DIR, "
                "where the matches lie now; SoccerNet's labels and features: "
                "https://www.soccer-net.org/data with its SoccerNet package's downloader "
                "(the Baidu embeddings are those of github.com/baidu-research/vidpress-sports); "
                "without any files, `python train.py --config configs/demo.py` runs the demo"
            )


def _check_folders(spec: DataSpec, match: str, labelled: bool) -> None:
    roots = [("features_root", spec.features_root if spec.has_features else spec.audio_root)]
    if labelled:
        roots.append(("labels_root", spec.labels_root))
    for key, root in roots:
        if not (root / match).is_dir():
            raise UserError(
                f"{match}: no such match folder in {root} (data.root or data.{key}); download it "
                "or take it off the split's list"
            )


def _index_half(spec: DataSpec, match: str, half: int) -> Half:
    folder = spec.features_root / match
    files = tuple(
        None if source.is_clock else _open_source(folder, half, source) for source in spec.sources
    )
    lengths = _lengths(files, [source.rows_per_second for source in spec.sources])
    audio, audio_lengths = None, {}
    if spec.audio is not None:
        audio = _open_audio(spec.audio_root / match, half, spec.audio)
        audio_lengths = _lengths([audio], [spec.audio.frames_per_second])
    seconds = max((lengths or audio_lengths).values(), default=0.0)
    if seconds == 0:
        patterns = [source.pattern for source in spec.sources if not source.is_clock]
        patterns += [] if spec.audio is None else [spec.audio.pattern]
        names = " and no ".join(pattern.replace("{half}", str(half)) for pattern in patterns)
        raise UserError(
            f"{match}: half {half} has no {names} in {folder}; mend data.sources, add the file, or "
            "take the match off the split's list"
        )
    _check_longest(lengths, audio_lengths)
    for path, length in (lengths | audio_lengths).items():
        if length < seconds - TAIL_SECONDS:
            _log.warning(
                "%s: lasts %.1f s, its half %.1f s; masked past its end", path, length, seconds
            )
    sources: tuple[ArrayFile | Clock | None, ...] = tuple(
        Clock(seconds, source.rows_per_second) if source.is_clock else file
        for source, file in zip(spec.sources, files, strict=True)
    )
    return Half(match, half, seconds, sources, audio, Events.none(), spec)


def _open_source(folder: Path, half: int, source: SourceSpec) -> ArrayFile | None:
    path = folder / source.pattern.format(half=half)
    if not path.exists():
        _log.warning("%s: absent, masked", path)
        return None
    file = open_array(path)
    if file.columns != source.width:
        raise UserError(
            f"{path}: has {file.columns} columns, the config announces {source.width}; mend "
            f"data.sources (pattern {source.pattern!r}, widths {source.widths}) or the file"
        )
    return file


def _open_audio(folder: Path, half: int, audio: AudioSpec) -> ArrayFile | None:
    """Mel power as (mel, frame), the published way and the reading where both fit, or turned."""
    path = folder / audio.pattern.format(half=half)
    if not path.exists():
        _log.warning("%s: absent, masked", path)
        return None
    file = open_array(path)
    if audio.mels not in file.shape:
        raise UserError(
            f"{path}: has the shape {file.shape}, none of its axes has {audio.mels} mel bands; "
            "mend data.audio.mels or the file"
        )
    return replace(file, time_axis=1 if file.shape[0] == audio.mels else 0)


def _lengths(files: Sequence[ArrayFile | None], rates: Sequence[float]) -> dict[Path, float]:
    """Seconds of every file that holds at least one row."""
    return {
        file.path: file.rows / rate
        for file, rate in zip(files, rates, strict=True)
        if file is not None and file.rows
    }


def _check_longest(sources: dict[Path, float], audio: dict[Path, float]) -> None:
    """Refuses what lasts more than 5 s longer than the rest; see `index_halves`."""
    for path, seconds in (sources | audio).items():
        others = {other: s for other, s in (sources | audio).items() if other != path}
        rest = list(sources.values()) if path in audio else list(others.values())
        agree = path in audio or (len(rest) > 1 and max(rest) - min(rest) <= TAIL_SECONDS)
        if rest and agree and seconds > max(rest) + TAIL_SECONDS:
            longest = max(others, key=lambda other: others[other])
            raise UserError(
                f"{path}: lasts {seconds:.1f} s, more than {TAIL_SECONDS:g} s longer than the "
                f"rest of its half ({longest.name}: {others[longest]:.1f} s); check its rate in "
                "data.sources or data.audio, cut it, or take the match off the split's list"
            )


def _check_presence(spec: DataSpec, halves: Sequence[Half]) -> None:
    if not halves:
        return
    for index, source in enumerate(spec.sources):
        if all(half.sources[index] is None for half in halves):
            raise UserError(
                f"data.sources[{index}].pattern: {source.pattern!r} is absent in every half of the "
                f"{len(halves)} below {spec.features_root}; download it or mend the pattern"
            )
    if spec.audio is not None and all(half.audio is None for half in halves):
        raise UserError(
            f"data.audio.pattern: {spec.audio.pattern!r} is absent in every half of the "
            f"{len(halves)} below {spec.audio_root}; download it, mend the pattern or train "
            "without audio (data.audio = None)"
        )
