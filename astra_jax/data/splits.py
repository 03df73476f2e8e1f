"""Lists of matches: SoccerNet-v2's official splits, and text or JSON files of one's own."""

import json
import os
import re
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Any

from astra_jax.errors import UserError, shown
from astra_jax.files import NAME_RULES, can_be_a_name

SPLITS: tuple[str, ...] = ("train", "valid", "test", "challenge")
"""SoccerNet-v2's official lists of matches, shipped with the package."""

_NUMBER = r"((?:-?[0-9]{1,9})?)"
_SLICED = re.compile(rf"(.*)\[{_NUMBER}:{_NUMBER}\]", re.DOTALL)
_PATH_KEYS = ("path", "UrlLocal", "match", "game")


def split_matches(
    splits: Mapping[str, str | None], split: str, root: Path | str | None
) -> tuple[str, ...]:
    """The matches of a split that the config names, or of a list as `load_split` takes it.

    `splits`: the config's, by name. Errors: UserError as `load_split`, or for an empty split.
    """
    # Of train+valid each part is one of the config's as well.
    parts = [split] if split in splits else split.split("+")
    name = "+".join(splits.get(part, part) or "" for part in parts)
    if not name:
        raise UserError(f"data.splits.{split}: names no list of matches; set it")
    known = f"data.splits, or name one of its splits ({', '.join(splits)})"
    return load_split(name, root, known)


def load_split(
    name_or_path: str, root: Path | str | None = None, given_by: str = "data.splits"
) -> tuple[str, ...]:
    """The matches of a shipped list (a name of SPLITS) or of a file, in the file's order.

    Text: one `league/season/match` a line; blank lines and lines that begin with # are skipped.
    JSON, which begins with [ or {: a list of such strings, or of objects that name theirs under
    "path", "UrlLocal", "match" or "game"; an object with one such list ({"train": [...]}); the
    SoccerNet package's {league: {season: [match, ...]}}. A path
    counts from the current folder, or from `root` where it is not there. A slice after the
    name takes a part: `train.txt[:70]`, `train.txt[-10:]`; a + between names puts lists together:
    `train+valid`. `given_by` is what the user mends where there is no such list.
    Errors: UserError for a missing, unreadable or empty list, JSON of another form, a match listed
    twice, a path that is absolute, holds a backslash or climbs with "..".
    """
    # A file's own name may hold a +.
    sliced = _SLICED.fullmatch(name_or_path)
    file = sliced[1] if sliced else name_or_path
    whole = _is_file(file) or _is_file(os.path.join(root or "", file))
    matches: list[str] = []
    for part in [name_or_path] if whole else name_or_path.split("+"):
        of_part = _load_list(part, root, given_by)
        if again := set(matches).intersection(of_part):
            raise UserError(f"{name_or_path}: {part} lists {min(again)!r} again; remove it")
        matches.extend(of_part)
    return tuple(matches)


def _is_file(path: str) -> bool:
    try:
        return os.path.isfile(os.path.expanduser(path))
    except ValueError:  # ~ before what is no user's name
        return False


def _load_list(name_or_path: str, root: Path | str | None, given_by: str) -> list[str]:
    """One list, or a slice of it."""
    sliced = _SLICED.fullmatch(name_or_path)
    name, first, last = sliced.groups() if sliced else (name_or_path, "", "")
    part = slice(*(int(number) if number else None for number in (first, last)))
    matches = _parse_list(_split_text(name, root, given_by), name)[part]
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
            f"readable list of matches (text file or JSON){below}; mend {given_by}"
        ) from error


def _parse_list(text: str, name_or_path: str) -> list[str]:
    if text.lstrip().startswith(("[", "{")):
        entries = _json_entries(text, name_or_path)
    else:
        entries = (
            (f"line {number}", line.strip())
            for number, line in enumerate(text.splitlines(), start=1)
            if line.strip() and not line.strip().startswith("#")
        )
    matches: dict[str, None] = {}
    for where, entry in entries:
        # Two spellings of one folder (a//b/./c/ and a/b/c) are one match.
        path = PurePosixPath(entry)
        match = str(path)
        if "\\" in match or path.is_absolute() or ".." in path.parts or not path.parts:
            raise UserError(
                f"{name_or_path}: {where}, {match!r}, must be league/season/match below the "
                "data root, with forward slashes"
            )
        if not all(can_be_a_name(part) for part in path.parts):
            raise UserError(
                f"{name_or_path}: {where} is no folder's name: one has {NAME_RULES}; mend it"
            )
        if match in matches:
            raise UserError(f"{name_or_path}: {where} lists {match!r} again; remove it")
        matches[match] = None
    return list(matches)


def _json_entries(text: str, name_or_path: str) -> Iterable[tuple[str, str]]:
    """Where each match of a JSON list stands, and its path. Errors: UserError."""
    try:
        content = json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{name_or_path}: broken JSON ({error}); mend it") from error
    paths = _nested_paths(content) or _listed_paths(content)
    if paths is None:
        raise UserError(
            f"{name_or_path}: is JSON, but no list of matches; write "
            '["league/season/match", ...], one list of objects with a "path", {"league": '
            '{"season": ["match", ...]}} as the SoccerNet package, or text with one '
            "league/season/match a line; several lists want a file each"
        )
    return ((f"entry {number}", path.strip()) for number, path in enumerate(paths, start=1))


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object's keys, each once: of a league that stands there twice one half would be lost."""
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{shown(twice)} stands twice in an object")
    return content


def _nested_paths(content: Any) -> list[str] | None:
    """The paths of {league: {season: [match, ...]}}; None where it is not that."""
    if not isinstance(content, dict):
        return None
    paths = []
    for league, seasons in content.items():
        if not isinstance(seasons, dict):
            return None
        for season, matches in seasons.items():
            if not isinstance(matches, list) or not all(isinstance(name, str) for name in matches):
                return None
            paths += [f"{league}/{season}/{match}" for match in matches]
    return paths


def _listed_paths(content: Any) -> list[str] | None:
    """The paths of a list, or of the one list of an object; None where there is no such list."""
    if isinstance(content, dict):
        lists = [value for value in content.values() if isinstance(value, list)]
        content = lists[0] if len(lists) == 1 else None
    if not isinstance(content, list):
        return None
    paths: list[Any] = [
        next((entry[key] for key in _PATH_KEYS if key in entry), None)
        if isinstance(entry, dict)
        else entry
        for entry in content
    ]
    return paths if all(isinstance(path, str) for path in paths) else None
