"""What a data set consists of, read from the config: sources, audio, roots, classes."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from astra_jax.config.clock import CLOCK_COLUMNS, CLOCK_PATTERN
from astra_jax.data.annotations import UnknownLabels
from astra_jax.data.clock import SLOWEST
from astra_jax.data.time import exact_rate
from astra_jax.errors import UserError, shown
from astra_jax.formats.soccernet_labels import check_file_name

# A row in two hours, the longest clip; no signal has more than its samples of sound.
_LEAST_RATE, _HIGHEST_RATE = Fraction(1, 7200), 100_000


@dataclass(frozen=True)
class SourceSpec:
    """A file of embeddings a half: `widths` of the embeddings side by side in each of its rows.

    `pattern` is the file's name in the match folder, `{half}` its number, or "clock": no file
    but the half's clock (`data.clock`), never normalised. `normalize`: whether it is normalised by
    the training matches' statistics. `shortcut_columns`: how many of its first columns the model's
    shortcut sees (None: all); what is read of a file doesn't hang on it.
    """

    pattern: str
    rows_per_second: Fraction
    widths: tuple[int, ...]
    normalize: bool = True
    shortcut_columns: int | None = field(default=None, compare=False)

    @property
    def width(self) -> int:
        """Columns of the file."""
        return sum(self.widths)

    @property
    def is_clock(self) -> bool:
        """Whether it is the half's clock and no file."""
        return self.pattern == CLOCK_PATTERN


@dataclass(frozen=True)
class AudioSpec:
    """A file of mel power a half, `mels` bands; `floor_db` is the quietest level in decibels."""

    pattern: str
    frames_per_second: int = 100
    mels: int = 128
    floor_db: float = -80.0


@dataclass(frozen=True)
class DataSpec:
    """Where the files of a data set lie and what they hold; see `from_config`."""

    labels_root: Path
    features_root: Path
    audio_root: Path
    classes: tuple[str, ...]
    sources: tuple[SourceSpec, ...]
    audio: AudioSpec | None
    unknown_labels: UnknownLabels = "error"
    labels_file: str = "Labels-v2.json"
    periods: tuple[int, ...] = (1, 2)

    @property
    def has_features(self) -> bool:
        """Whether any source is a file."""
        return not all(source.is_clock for source in self.sources)

    @classmethod
    def from_config(cls, data: Mapping[str, Any]) -> "DataSpec":
        """The spec of the config's section `data`.

        Reads root, labels_root, features_root and audio_root (None: the same as root), classes,
        unknown_labels, labels_file, sources (mappings with pattern, rows_per_second, widths and,
        where wanted, normalize and shortcut_columns) and audio (None, or a mapping with pattern,
        frames_per_second, mels, floor_db), and where wanted periods: the halves that count.
        Errors: UserError naming the config key.
        """
        classes = data["classes"]
        if not _all(classes, str):
            raise UserError(f"data.classes: {shown(classes)}, it must be a list of names")
        classes = tuple(classes)
        if not classes or len(set(classes)) != len(classes):
            raise UserError("data.classes: must name at least one class, and each one once")
        unknown = data["unknown_labels"]
        if unknown not in ("error", "skip"):
            raise UserError(f"data.unknown_labels: {unknown!r}, it must be 'error' or 'skip'")
        periods = read_periods(data.get("periods", cls.periods))
        if not _all(data["sources"], Mapping):
            raise UserError(
                f"data.sources: {shown(data['sources'])}, it must be a list of mappings, one a "
                "source, as in configs/commentary.py"
            )
        sources = tuple(
            _source(item, f"data.sources[{i}]", periods) for i, item in enumerate(data["sources"])
        )
        audio = None if data["audio"] is None else _audio(data["audio"], periods)
        if all(source.is_clock for source in sources) and audio is None:
            raise UserError(
                "data.sources: no file and no audio; name at least one file's pattern"
                + (" beside the clock" if sources else "")
            )
        return cls(
            labels_root=_root(data, "labels_root"),
            features_root=_root(data, "features_root"),
            audio_root=_root(data, "audio_root"),
            classes=classes,
            sources=sources,
            audio=audio,
            unknown_labels=unknown,
            labels_file=check_file_name(data["labels_file"], "data.labels_file"),
            periods=periods,
        )


def read_periods(periods: Any) -> tuple[int, ...]:
    """The value of `data.periods`, rising; UserError where it is no list of halves."""
    whole = _all(periods, int) and len(periods) > 0
    if not whole or len(set(periods)) != len(periods) or not set(periods) <= set(range(1, 10)):
        raise UserError(
            f"data.periods: {shown(periods)}, it must be a list of the halves that count, each "
            "once, whole numbers from 1 to 9, such as (1, 2)"
        )
    return tuple(sorted(periods))


def _root(data: Mapping[str, Any], key: str) -> Path:
    value = data[key] if data[key] is not None else data["root"]
    if not value:
        raise UserError(
            f"data.root: not set (nor data.{key}); pass --config.data.root=DIR, the folder that "
            "holds league/season/match"
        )
    return Path(value).expanduser()


def _fields(
    item: Mapping[str, Any],
    where: str,
    periods: Sequence[int],
    keys: tuple[str, ...],
    optional: tuple[str, ...] = (),
) -> dict[str, Any]:
    for key in item:
        if key not in keys + optional:
            names = ", ".join(keys + optional)
            raise UserError(f"{where}.{key}: no such key; there are {names}")
    for key in keys:
        if key not in item:
            raise UserError(f"{where}.{key}: missing; add it")
    pattern = item["pattern"]
    if pattern == CLOCK_PATTERN and "widths" in keys:
        return dict(item)
    rest = pattern.replace("{half}", "") if isinstance(pattern, str) else "{"
    # One recording a match, and so one file, needs no number in its name.
    named = "{half}" in str(pattern) or (rest and len(periods) == 1)
    if not named or "{" in rest or "}" in rest:
        raise UserError(
            f"{where}.pattern: {shown(pattern)}, it must be a file's name with {{half}} where "
            "its number goes (where data.periods has one alone, it may go without), and no other "
            "braces" + (", or 'clock'" if "widths" in keys else "")
        )
    return dict(item)


def _source(item: Mapping[str, Any], where: str, periods: Sequence[int]) -> SourceSpec:
    fields = _fields(
        item,
        where,
        periods,
        ("pattern", "rows_per_second", "widths"),
        ("normalize", "shortcut_columns"),
    )
    widths, rate = fields["widths"], fields["rows_per_second"]
    if not _all(widths, int) or not widths or min(widths) < 1:
        raise UserError(
            f"{where}.widths: {shown(widths)}, it must be a list of whole numbers above 0, such "
            "as (10,)"
        )
    exact = _rate(rate, f"{where}.rows_per_second")
    is_clock = fields["pattern"] == CLOCK_PATTERN
    normalize = fields.get("normalize", not is_clock)
    if is_clock:
        _check_clock(where, widths, exact, normalize)
    if not isinstance(normalize, bool):
        raise UserError(f"{where}.normalize: {shown(normalize)}, it must be True or False")
    shortcut = fields.get("shortcut_columns")
    if shortcut is not None and not (_all([shortcut], int) and 0 <= shortcut <= sum(widths)):
        raise UserError(
            f"{where}.shortcut_columns: {shown(shortcut)}, it must be a whole number of columns, "
            f"from 0 to {sum(widths)}"
        )
    return SourceSpec(fields["pattern"], exact, tuple(widths), normalize, shortcut)


def _rate(value: Any, where: str) -> Fraction:
    """A rate of the config, exact; a number above 0 or a text as "30000/1001"."""
    try:
        if not isinstance(value, str) and not _is_number(value):
            raise ValueError
        exact = exact_rate(value)
        if not _LEAST_RATE <= exact <= _HIGHEST_RATE:
            raise ValueError
    except ValueError:
        raise UserError(
            f"{where}: {shown(value)}, it must be a number above 0, or a fraction of two in "
            f"quotes as '30000/1001', from {_LEAST_RATE} to {_HIGHEST_RATE}"
        ) from None
    return exact


def _check_clock(where: str, widths: Any, rate: Fraction, normalize: Any) -> None:
    if tuple(widths) != (CLOCK_COLUMNS,):
        raise UserError(
            f"{where}.widths: {shown(widths)}, a half's clock has the widths ({CLOCK_COLUMNS},)"
        )
    if rate < SLOWEST:
        raise UserError(
            f"{where}.rows_per_second: {float(rate):g}, a half's clock needs at least "
            f"{float(SLOWEST)}"
        )
    if normalize is True:
        raise UserError(f"{where}.normalize: True, but a half's clock is taken as it is")


def _audio(item: Any, periods: Sequence[int]) -> AudioSpec:
    if not isinstance(item, Mapping):
        raise UserError(
            f"data.audio: {shown(item)}, it must be a mapping, as in astra_jax/config/defaults.py,"
            " or None for no audio"
        )
    fields = _fields(
        item, "data.audio", periods, ("pattern", "frames_per_second", "mels", "floor_db")
    )
    for key in ("frames_per_second", "mels"):
        if not _all([fields[key]], int) or not 1 <= fields[key] <= _HIGHEST_RATE:
            raise UserError(
                f"data.audio.{key}: {shown(fields[key])}, it must be a whole number of at least 1 "
                f"and at most {_HIGHEST_RATE}"
            )
    if not _is_number(fields["floor_db"]):
        raise UserError(f"data.audio.floor_db: {shown(fields['floor_db'])}, it must be a number")
    return AudioSpec(
        fields["pattern"], fields["frames_per_second"], fields["mels"], float(fields["floor_db"])
    )


def _all(values: Any, kind: Any) -> bool:
    """Whether it is a list or tuple of such values; True and False are no numbers."""
    return isinstance(values, list | tuple) and all(
        isinstance(value, kind) and not isinstance(value, bool) for value in values
    )


def _is_number(value: Any) -> bool:
    """Whether it is a finite number."""
    return _all([value], int | float) and abs(value) <= sys.float_info.max
