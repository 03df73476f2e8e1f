"""The halves of matches: which files each has, how long it lasts, and its events."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from astra_jax.data.annotations import Events, read_annotations
from astra_jax.data.arrays import ArrayFile
from astra_jax.data.clock import Clock
from astra_jax.data.halves import TAIL_SECONDS, Half
from astra_jax.data.layout import (
    audio_path,
    check_folders,
    check_roots,
    label_path,
    open_audio,
    open_source,
    source_path,
)
from astra_jax.data.sources import DataSpec
from astra_jax.data.time import Exact, duration, steps_touched
from astra_jax.errors import UserError, join_some
from astra_jax.formats.soccernet_labels import (
    HALF_SECONDS,
    describe_others,
    read_raw_annotations,
)

_log = logging.getLogger(__name__)

_NAMED = 3
"""So many halves are named in one line of the log."""


def index_halves(spec: DataSpec, matches: Sequence[str], labelled: bool = True) -> list[Half]:
    """Every half of the matches, in order, from headers and label files alone (no data is read).

    The halves of a match are those of `data.periods` that have a file with at least one row. The
    others are left out, with one line in the log that counts their labels; a match that has no
    such half is an error. Halves that last longer than two hours get a line as well, and so do the
    labels of other periods.

    A half is as long as its longest source (its audio, where it has no source). A source or audio
    that is absent, empty or short is logged once and masked when read; one absent in every half is
    an error. So is a file more than 5 s longer than the rest: audio beside the sources, or a source
    where two or more other files of the half agree on a shorter length (of two sources alone,
    nothing tells whether one is long or the other one short: it counts as short).
    Events past the end of their half are in none (a score counts them), with a line in the log.
    With labelled=False no label file is opened and halves have no events.
    Errors: UserError naming the root, match, file or config key and the mend.
    """
    check_roots(spec, labelled)
    halves: list[Half] = []
    left_out: dict[str, int] = {}  # labels of each half without files, by the half's name
    others: list[int] = []  # the periods of the labels that don't count
    for match in matches:
        check_folders(spec, match, labelled)
        events = dict.fromkeys(spec.periods, Events.none())
        if labelled:
            labels = label_path(spec, match)
            events = read_annotations(
                labels, spec.classes, spec.unknown_labels, spec.periods, others
            )
        found = {period: _index_half(spec, match, period) for period in spec.periods}
        whole = [half for half in found.values() if half is not None]
        if not whole:
            raise _no_half_error(spec, match)
        left_out |= {_name(match, p): len(events[p]) for p, half in found.items() if half is None}
        inside = [replace(half, events=_inside(events[half.half], half.seconds)) for half in whole]
        if late := sum(len(events[half.half]) - len(half.events) for half in inside):
            _log.warning(
                "%s: %d event(s) past the end of their half: not trained on, but scored",
                match,
                late,
            )
        halves += inside
    if line := describe_others(others, spec.periods, "data.periods"):
        _log.warning("%s", line)
    _warn_of_left_out(left_out)
    _warn_of_long(halves)
    _check_presence(spec, halves)
    return halves


def read_labels(spec: DataSpec, matches: Sequence[str]) -> dict[str, list[dict[str, Any]]] | None:
    """The annotations that the metric reads; None where no match has any. Errors: UserError."""
    paths = {match: label_path(spec, match) for match in matches}
    if not any(path.is_file() for path in paths.values()):
        return None
    return {match: read_raw_annotations(path) for match, path in paths.items()}


def _inside(events: Events, seconds: Exact) -> Events:
    return events.select(events.milliseconds < steps_touched(seconds, 1000))


def _index_half(spec: DataSpec, match: str, period: int) -> Half | None:
    """A half from its files' headers; None where no file holds a row."""
    files = tuple(
        None if source.is_clock else open_source(spec, source, match, period)
        for source in spec.sources
    )
    lengths = _lengths(files, [source.rows_per_second for source in spec.sources])
    audio, audio_lengths = None, {}
    if spec.audio is not None:
        audio = open_audio(spec, spec.audio, match, period)
        audio_lengths = _lengths([audio], [spec.audio.frames_per_second])
    seconds = max((lengths or audio_lengths).values(), default=Fraction(0))
    if seconds == 0:
        return None
    _warn_of_masked(spec, match, period, files, audio)
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
    return Half(match, period, seconds, sources, audio, Events.none(), spec)


def _no_half_error(spec: DataSpec, match: str) -> UserError:
    patterns = [source.pattern for source in spec.sources if not source.is_clock]
    patterns += [] if spec.audio is None else [spec.audio.pattern]
    names = " and no ".join(
        pattern.replace("{half}", "/".join(map(str, spec.periods))) for pattern in patterns
    )
    root = spec.features_root if spec.has_features else spec.audio_root
    return UserError(
        f"{match}: has no {names} with a row in {root / match}; mend data.sources or data.periods, "
        "add a file, or take the match off the split's list"
    )


def _warn_of_masked(
    spec: DataSpec,
    match: str,
    period: int,
    files: Sequence[ArrayFile | None],
    audio: ArrayFile | None,
) -> None:
    """A line for each file of a half that is not there, or holds no row."""
    found = {
        source_path(spec, source, match, period): file
        for source, file in zip(spec.sources, files, strict=True)
        if not source.is_clock
    }
    if spec.audio is not None:
        found[audio_path(spec, spec.audio, match, period)] = audio
    for path, file in found.items():
        if file is None or not file.rows:
            _log.warning("%s: %s, masked", path, "absent" if file is None else "empty")


def _warn_of_left_out(left_out: Mapping[str, int]) -> None:
    """One line for all halves that have no files, by their names, and their labels."""
    if not left_out:
        return
    labels = sum(left_out.values())
    _log.warning(
        "halves without files: %d left out (%s)%s",
        len(left_out),
        join_some(list(left_out), _NAMED),
        f"; {labels} label(s) lie in them" if labels else "",
    )


def _warn_of_long(halves: Sequence[Half]) -> None:
    """One line for all halves that the official metric's grid doesn't hold."""
    long = [
        f"{_name(half.match, half.half)}: {float(half.seconds) / 3600:.1f} h"
        for half in halves
        if half.seconds > HALF_SECONDS
    ]
    if long:
        _log.warning(
            "halves longer than two hours: %d (%s): the official metric puts all that comes later "
            "on one frame; where they are no longer, mend rows_per_second in data.sources",
            len(long),
            join_some(long, _NAMED),
        )


def _name(match: str, period: int) -> str:
    return f"{match} half {period}"


def _lengths(files: Sequence[ArrayFile | None], rates: Sequence[Exact]) -> dict[Path, Fraction]:
    """Seconds of every file that holds at least one row."""
    return {
        file.path: duration(file.rows, rate)
        for file, rate in zip(files, rates, strict=True)
        if file is not None and file.rows
    }


def _check_longest(sources: dict[Path, Fraction], audio: dict[Path, Fraction]) -> None:
    """Refuses what lasts more than 5 s longer than the rest; see `index_halves`."""
    for path, seconds in (sources | audio).items():
        others = {other: s for other, s in (sources | audio).items() if other != path}
        rest = list(sources.values()) if path in audio else list(others.values())
        agree = path in audio or (len(rest) > 1 and max(rest) - min(rest) <= TAIL_SECONDS)
        if rest and agree and seconds > max(rest) + TAIL_SECONDS:
            longest = max(others, key=lambda other: others[other])
            raise UserError(
                f"{path}: lasts {float(seconds):.1f} s, more than {TAIL_SECONDS:g} s longer than "
                f"the rest of its half ({longest.name}: {float(others[longest]):.1f} s); check its "
                "rate in data.sources or data.audio, cut it, or take the match off the split's list"
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
