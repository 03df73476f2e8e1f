"""`data.cache = "memory"`: what was read stays in memory, one copy for all loading processes.

The copies are files in a folder of their own in /dev/shm. Whoever needs a file first copies it
whole (`arrays`), and what is read of a copy is what would be read of the file. The folder goes when
the run ends; one that a killed run left goes when the next training starts.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from astra_jax.data.arrays import ArrayFile
from astra_jax.data.halves import Half
from astra_jax.errors import UserError, shown

ROOT = Path("/dev/shm")
GROUP = Path("/sys/fs/cgroup")
PREFIX = "astra_jax_cache_"
_LOCK = "lock"


def is_wanted(value: Any) -> bool:
    """The value of `data.cache`; UserError where it is no such value."""
    if value not in (None, "", "memory"):
        raise UserError(f"config.data.cache: {shown(value)}, it must be 'memory', or empty")
    return bool(value)


class MemoryCache:
    """A folder in memory for the files of a run's halves, until it is closed or its process ends.

    It lies in `ROOT`, or in `root`.

    Errors: UserError where the files don't fit into the memory that is free.
    """

    def __init__(self, halves: Sequence[Half], root: Path | None = None) -> None:
        root = root or ROOT
        files = {file.path: file.size for half in halves for file in _files(half)}
        _check_room(files, root)
        # It gets its name when it is locked: one that is not is a dead run's.
        try:
            made = Path(tempfile.mkdtemp(prefix=f".{PREFIX}", dir=root))
            lock = _lock(made)
            folder = made.rename(root / made.name.removeprefix("."))
        except OSError as error:
            raise UserError(
                f"config.data.cache: 'memory', but nothing can be written to {root} "
                f"({error.strerror}): leave it out"
            ) from error
        self._copies = {path: folder / str(number) for number, path in enumerate(files)}
        self._close = weakref.finalize(self, _remove, folder, lock)
        _open.add(self)

    def keep(self, halves: Sequence[Half]) -> list[Half]:
        """The same halves, whose files stay in memory once they were read."""
        return [
            replace(
                half, sources=tuple(map(self._keep, half.sources)), audio=self._keep(half.audio)
            )
            for half in halves
        ]

    def _keep(self, file: Any) -> Any:
        if not isinstance(file, ArrayFile):
            return file
        return replace(file, copy=self._copies[file.path])

    def __enter__(self) -> "MemoryCache":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Removes the copies; where that was done already, nothing."""
        self._close()


_open: weakref.WeakSet[MemoryCache] = weakref.WeakSet()


def close_all() -> None:
    """Closes the caches of this process, before it ends at once: nothing else would."""
    for cache in list(_open):
        cache.close()


def remove_left(root: Path | None = None) -> None:
    """Removes what runs left that were killed."""
    for folder in (root or ROOT).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # another run's, or another user's
            _remove(folder, _lock(folder))


def _files(half: Half) -> list[ArrayFile]:
    return [file for file in (*half.sources, half.audio) if isinstance(file, ArrayFile)]


def _lock(folder: Path) -> int:
    """The folder's lock, which goes when its process ends; OSError where another one has it."""
    file = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(file)
        raise
    return file


def _remove(folder: Path, lock: int) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    os.close(lock)


def _check_room(files: dict[Path, int], root: Path) -> None:
    if not root.is_dir():
        raise UserError(f"config.data.cache: 'memory', but this system has no {root}: leave it out")
    needed, free = sum(files.values()), _free(root)
    if needed > free:
        raise UserError(
            f"config.data.cache: 'memory' would take {needed / 1e9:.1f} GB for {len(files)} files, "
            f"and {free / 1e9:.1f} GB are free ({root}, memory): leave it out, or train on fewer "
            "matches"
        )


def _free(root: Path) -> int:
    """Bytes that files in memory may still take: of the folder's space, and of the memory."""
    space = os.statvfs(root)
    found = [space.f_bavail * space.f_frsize]
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        line = next(line for line in lines if line.startswith("MemAvailable:"))
        found.append(1024 * int(line.split()[1]))
    with contextlib.suppress(OSError, ValueError):  # a container's limit, "max" where it has none
        limit, used, details = (
            (GROUP / f"memory.{name}").read_text(encoding="ascii")
            for name in ("max", "current", "stat")
        )
        of = dict(line.split() for line in details.splitlines())
        # What was read of files lies in memory as long as nobody needs it.
        kept = int(of.get("active_file", 0)) + int(of.get("inactive_file", 0))
        found.append(int(limit) - int(used) + kept)
    return min(found)
