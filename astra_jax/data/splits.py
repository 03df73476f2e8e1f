"""Lists of matches: SoccerNet-v2's official splits, and text files of one's own."""

import os
import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path, PurePosixPath

from astra_jax.errors import UserError

SPLITS: tuple[str, ...] = ("train", "valid", "test", "challenge")
"""SoccerNet-v2's official lists of matches, shipped with the package."""


_LONGEST_NAME = 255


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
    """The matches of a shipped list (a name of SPLITS) or of a text file, in the file's order.

    One `league/season/match` a line; blank lines and lines that begin with # are skipped. A path
    counts from the current folder, or from `root` where it is not there. A slice after the
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
            f"readable text file with one league/season/match a line{below}; mend {given_by}"
        ) from error


def _parse_list(text: str, name_or_path: str) -> list[str]:
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
