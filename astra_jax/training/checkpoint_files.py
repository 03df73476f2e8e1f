"""The folders of checkpoints as files, without Orbax: which are there, progress, what is put aside.

A checkpoint of step N is the folder N: Orbax gives it this name when it is complete. What has any
other name is none to Orbax.
"""

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path

from astra_jax.files import name_in_errors, remove_unfinished, write_atomically
from astra_jax.training.checkpoint_faults import DamagedCheckpoint, read_patiently
from astra_jax.training.state import Progress

_DISCARDED = ".discarded"


def steps_in(folder: Path) -> list[int]:
    """The steps of the checkpoints in a folder, rising; none where there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal())


def has_latest(latest: Path) -> bool:
    """Whether this folder has a checkpoint to go on from; makes nothing."""
    return bool(steps_in(latest))


def read_progress(latest: Path) -> tuple[int, Progress] | None:
    """Step and progress of the newest checkpoint; None where there is none, or it is damaged.

    Raises:
        UserError: it can't be read just now.
    """
    if not (steps := steps_in(latest)):
        return None
    folder = latest / str(steps[-1])
    path = _progress_path(folder)
    try:
        progress = read_patiently(
            folder, lambda: Progress.from_json(json.loads(path.read_text(encoding="utf-8")))
        )
    except DamagedCheckpoint:
        return None
    return steps[-1], progress


def write_progress(folder: Path, progress: Progress) -> None:
    """Puts other progress into the checkpoint in `folder`: a kill leaves the old or the new."""
    write_atomically(_progress_path(folder), json.dumps(dataclasses.asdict(progress)))


def _progress_path(folder: Path) -> Path:
    """Where Orbax's JsonSave writes the item `progress`."""
    return folder / "progress" / "metadata"


def put_aside(folder: Path) -> Path:
    """Gives a damaged checkpoint a name that is no step's, and that nothing has; the new path."""
    number, path = 1, folder.with_name(f"{folder.name}.damaged")
    while path.exists():
        number += 1
        # No underscore: to Orbax what ends in one and a number is a step.
        path = folder.with_name(f"{folder.name}.damaged.{number}")
    with name_in_errors(folder):
        folder.rename(path)
    return path


def discard(folder: Path) -> None:
    """Deletes a checkpoint so that a kill meanwhile leaves no half of it under its name."""
    left = folder.with_name(f"{folder.name}{_DISCARDED}")
    folder.rename(left)
    shutil.rmtree(left, ignore_errors=True)


def clean(folder: Path) -> None:
    """Takes away what a killed run left unfinished.

    Orbax would do so in a thread, which fails with a traceback where the process ends early.
    """
    for pattern in ("*.orbax-checkpoint-tmp", f"*{_DISCARDED}"):
        for left in folder.glob(pattern):
            shutil.rmtree(left, ignore_errors=True)
    for step in steps_in(folder):
        remove_unfinished(_progress_path(folder / str(step)).parent)


def checkpoint_digest(best: Path, step: int) -> str | None:
    """A hash of the files of the best checkpoint, their names and bytes; None if it's gone."""
    folder = best / str(step)
    hashed = hashlib.sha256()
    try:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            hashed.update(f"{path.relative_to(folder).as_posix()}\n".encode())
            with open(path, "rb") as file:
                hashed.update(hashlib.file_digest(file, "sha256").digest())
    except OSError:  # a training has just replaced it
        return None
    return f"sha256:{hashed.hexdigest()}" if folder.is_dir() else None
