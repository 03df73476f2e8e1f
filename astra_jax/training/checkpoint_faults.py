"""What is wrong with a checkpoint, in one line: the disk, damage, another model or version."""

import errno
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax

from astra_jax.errors import UserError, one_line

_log = logging.getLogger(__name__)

_T = TypeVar("_T")

WAITS_SECONDS = (1.0, 3.0, 10.0)
"""Before each new try to read what can't be read just now."""

# A file server that is away for a moment, or a limit of this machine or process: whatever cannot
# be read because of it may be whole.
_PASSING = (
    *(errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EINTR, errno.EBUSY),
    *(errno.ENXIO, errno.EREMOTEIO, errno.ENOLINK, errno.ENETDOWN, errno.ENETUNREACH),
    *(errno.ENOTCONN, errno.ECONNABORTED, errno.ECONNRESET, errno.ECONNREFUSED, errno.EPIPE),
    *(errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ETIME, errno.ESHUTDOWN),
    *(errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS),
)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
# What errors of Orbax and TensorStore, of several types, have in common is the system's words.
_WORDS = re.compile(
    "stale (nfs )?file handle|timed[ -]?out|time-?out|connection (reset|refused|aborted)"
    "|DEADLINE_EXCEEDED|UNAVAILABLE|PERMISSION_DENIED",
    re.IGNORECASE,
)

_PARAMS = "params/"
"""What the names of a training state's parameters begin with; those of a best checkpoint don't."""


class DamagedCheckpoint(UserError):
    """A checkpoint whose files are there, or are not, and do not hold what they should."""


def disk_reason(error: BaseException) -> str | None:
    """What the disk refuses, in the system's words; None where an error is of something else."""
    return _reason(error, (*_FULL, *_PASSING))


def _passing_reason(error: BaseException, folder: Any) -> str | None:
    """Why a file in `folder` can't be read just now, in the system's words; None where that is no
    matter of time or of this machine's limits: the file is damaged.
    """
    return _reason(error, _PASSING, str(folder))


def _reason(error: BaseException, codes: tuple[int, ...], folder: str | None = None) -> str | None:
    for cause in _causes(error):
        if isinstance(cause, OSError) and cause.errno in codes:
            return os.strerror(cause.errno)
        # A path may hold any words: /runs/timeout.
        text = str(cause).replace(folder, "") if folder else str(cause)
        for code in codes:
            if os.strerror(code) in text:
                return os.strerror(code)
        if isinstance(cause, TimeoutError | ConnectionError):
            return one_line(cause)
        if found := _WORDS.search(text):
            return found.group()
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and what it was raised from, as a traceback would show them."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)


def read_patiently(folder: Any, read: Callable[[], _T]) -> _T:
    """What `read` returns of the checkpoint in `folder`; it is asked again while errors may pass.

    Raises:
        DamagedCheckpoint: it can't be read, and that won't pass.
        UserError: what might have passed didn't; or `read` itself raised it.
    """
    for wait in (*WAITS_SECONDS, None):
        try:
            return read()
        except UserError:
            raise
        except Exception as error:  # whatever Orbax and TensorStore say of a file
            for cause in _causes(error):
                if isinstance(cause, MemoryError | jax.errors.JaxRuntimeError):
                    raise cause from None  # of the devices: no file's
            reason = _passing_reason(error, folder)
            if reason is None:
                raise _damage_error(folder, error) from error
            if wait is None:
                raise UserError(
                    f"{folder}: the checkpoint cannot be read now ({reason}, "
                    f"{len(WAITS_SECONDS) + 1} tries); nothing was changed: see to the disk or "
                    "its server, then give the same command again"
                ) from error
        _log.warning(
            "%s: the checkpoint cannot be read now (%s): trying again in %g s", folder, reason, wait
        )
        time.sleep(wait)
    raise AssertionError("unreachable")


def _damage_error(folder: Any, error: Exception) -> DamagedCheckpoint:
    """For a checkpoint, in `folder`, that can't be read."""
    said = str(error)
    if "TensorStore details" in said:  # dozens of lines of how it was opened, no word of the fault
        *_, first = _causes(error)
        said = str(first)
    return DamagedCheckpoint(
        f"{folder}: the checkpoint is damaged ({one_line(said)}): restore it from a copy, or "
        "train anew in another --workdir"
    )


def check_model(folder: Any, stored: Any, abstract: Any) -> None:
    """Raises UserError where the checkpoint in `folder` is of another model, or version.

    Both are trees of what has a shape. Orbax leaves tracebacks of its threads when it finds out.
    """
    theirs, ours = _shapes(stored), _shapes(abstract)
    names = sorted(theirs.keys() | ours.keys())
    differing = [name for name in names if theirs.get(name) != ours.get(name)]
    if not differing:
        return
    of_params = [name for name in differing if name.startswith(_PARAMS)]
    if not of_params and any(name.startswith(_PARAMS) for name in ours):
        # Of a training's state all but the parameters is as the version lays it out.
        raise UserError(
            f"{folder}: the state of this training is of another version of astra_jax "
            f"({differing[0]} is {_shape(theirs, differing[0])} there, "
            f"{_shape(ours, differing[0])} in this one): go on with the version that it was begun "
            "with, or train in another --workdir"
        )
    name = (of_params or differing)[0]
    raise UserError(
        f"{folder}: the checkpoint is of another model ({name} is {_shape(theirs, name)} there, "
        f"{_shape(ours, name)} in the config): use the config it was trained with, or another "
        "--workdir"
    )


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """Shapes by name; Orbax has mappings and lists where a state has classes and tuples."""
    return {
        "/".join(_key(part) for part in path): tuple(leaf.shape)
        for path, leaf in jax.tree.leaves_with_path(tree)
    }


def _key(part: Any) -> str:
    for attribute in ("key", "idx", "name"):
        if hasattr(part, attribute):
            return str(getattr(part, attribute))
    return str(part)


def _shape(shapes: dict[str, tuple[int, ...]], name: str) -> str:
    return str(shapes[name]) if name in shapes else "absent"
