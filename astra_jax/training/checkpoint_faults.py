"""What is wrong with a checkpoint, in one line: the disk, damage, or another model's."""

import errno
import os
from typing import Any

import jax

from astra_jax.errors import UserError, one_line

# What errors of Orbax and TensorStore, of several types, have in common.
_DISK_REASONS = tuple(
    os.strerror(code)
    for code in (
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EFBIG,
        errno.EROFS,
        errno.EACCES,
        errno.EPERM,
        errno.EIO,
        errno.EMFILE,
    )
)


def disk_reason(error: BaseException) -> str | None:
    """What the disk refuses, in the system's words; None where an error is of something else."""
    return next((reason for reason in _DISK_REASONS if reason in str(error)), None)


def damage_error(folder: Any, error: Exception) -> UserError:
    """For a checkpoint, in `folder`, that can't be read."""
    return UserError(
        f"{folder}: the checkpoint is damaged ({one_line(error)}): restore it from a copy, or "
        "train anew in another --workdir"
    )


def check_model(folder: Any, stored: Any, abstract: Any) -> None:
    """Raises UserError where the checkpoint in `folder` is of another model.

    Both are trees of what has a shape. Orbax leaves tracebacks of its threads when it finds out.
    """
    theirs, ours = _shapes(stored), _shapes(abstract)
    for name in sorted(theirs.keys() | ours.keys()):
        if theirs.get(name) != ours.get(name):
            raise UserError(
                f"{folder}: the checkpoint is of another model ({name} is "
                f"{_shape(theirs, name)} there, {_shape(ours, name)} in the config): use the "
                "config it was trained with, or another --workdir"
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
