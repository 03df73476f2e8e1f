"""One run a folder: a lock that the system takes back when its process ends, however it ends."""

import contextlib
import errno
import fcntl
import json
import logging
import os
import socket
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from astra_jax.errors import UserError
from astra_jax.files import name_in_errors
from astra_jax.runs.folder import RunFolder

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def lock_folder(run: RunFolder) -> Iterator[Callable[[], None]]:
    """Holds the lock of a run's folder, which it makes, and takes away where it stays empty.

    The file names the host, process and start time of the run at work. What a dead process left is
    taken over, and a message says so. On a file system without locks a message says so too, and
    the run goes on. Yields what releases it, for whoever ends the process without leaving this
    context.

    Raises:
        UserError: another process is at work in this folder.
    """
    made = _make(run.path)
    path = run.lock_path
    file = _take(path)
    left = _holder(os.pread(file, 4096, 0))
    if left:
        _log.warning("%s: left by %s, which ended without finishing: taken over", path, left)
    content = {
        "host": socket.gethostname(),
        "process": os.getpid(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }

    def release_lock() -> None:
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # not empty: the run has begun
            for folder in made:
                folder.rmdir()

    try:
        with name_in_errors(path):
            os.ftruncate(file, 0)
            os.pwrite(file, json.dumps(content).encode() + b"\n", 0)
        yield release_lock
    finally:
        release_lock()
        os.close(file)


def _make(folder: Path) -> list[Path]:
    """Makes a folder and its parents; those that were not there, the deepest first."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def _take(path: Path) -> int:
    """The open and locked file; UserError where another process has it."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = _holder(os.pread(file, 4096, 0)) or "another process"
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                _log.warning(
                    "%s: this file system has no locks (%s): see to it that no other run uses "
                    "this folder",
                    path,
                    error.strerror,
                )
                return file
            os.close(file)
            raise UserError(
                f"{path.parent}: a run is at work in this folder ({holder}): wait for it, stop "
                "it, or choose another --workdir"
            ) from error
        # Whoever ended a moment ago took its file away: a lock on that one keeps nobody out.
        if path.exists() and os.path.samestat(os.fstat(file), path.stat()):
            return file
        os.close(file)


def _holder(content: bytes) -> str:
    """Who wrote a lock file, in words; empty where it says nothing."""
    try:
        holder: dict[str, Any] = json.loads(content)
        return f"host {holder['host']}, process {holder['process']}, since {holder['started']}"
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
