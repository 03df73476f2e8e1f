"""Checkpoints of a run, by Orbax: the latest to go on from, the best to predict with."""

import contextlib
import dataclasses
import hashlib
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from astra_jax.devices import is_first_process
from astra_jax.errors import UserError, one_line
from astra_jax.training.checkpoint_faults import check_model, damage_error, disk_reason
from astra_jax.training.state import Progress

_log = logging.getLogger(__name__)


class Checkpoints:
    """The latest and the best of a run, two folders of step folders, each complete or absent.

    (One that a kill met while it was deleted is neither; it counts as damaged.) A latest
    checkpoint holds the whole training state and a small JSON of progress, a best one only the
    parameters. Saving goes on in the background while training does.
    """

    def __init__(self, latest: Path, best: Path, read_only: bool = False) -> None:
        """`read_only` makes and cleans no folder: a training may be at work in these."""
        latest, best = latest.absolute(), best.absolute()
        if not read_only and is_first_process():
            for folder in (latest, best):
                _clean(folder)
        # One more than the newest: it is the way back where the newest can't be read.
        self._latest = _manager(latest, 2, read_only)
        self._best = _manager(best, 1, read_only)

    def latest_step(self) -> int | None:
        """The step of the newest complete checkpoint, None where there is none."""
        return self._latest.latest_step()

    def save_latest(self, step: int, state: Any, progress: Progress) -> None:
        """Saves the state after `step` steps, in the place of one that is there already."""
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(state),
            progress=ocp.args.JsonSave(dataclasses.asdict(progress)),
        )
        with self._saving():
            # The progress says which checkpoint is the best: a run killed with this one on disk
            # and that one not would go on, or be finished, without it.
            self._best.wait_until_finished()
            # The end of an epoch whose validation was interrupted comes by here twice.
            if step in self._latest.all_steps():
                self._latest.wait_until_finished()
                self._latest.delete(step)
            self._latest.save(step, args=args)

    def restore_latest(self, abstract_state: Any) -> tuple[Any, Progress]:
        """State (placed as `abstract_state` says) and progress of the newest readable checkpoint.

        Newer ones that can't be read are deleted, and a message says so.

        Raises:
            UserError: none can be read, or they are of another model.
        """
        args = ocp.args.Composite(
            state=ocp.args.StandardRestore(abstract_state), progress=ocp.args.JsonRestore()
        )
        steps = sorted(self._latest.all_steps(), reverse=True)
        errors: list[UserError] = []
        for step in steps:
            try:
                restored = self._restore(self._latest, step, "state", abstract_state, args)
                progress = self._progress(step, restored.progress)
            except UserError as error:
                errors.append(error)
                continue
            for broken, fault in zip(steps, errors, strict=False):
                _log.warning(
                    "%s/%d: the checkpoint is damaged (%s): deleted, going on from step %d",
                    self._latest.directory,
                    broken,
                    one_line(fault.__cause__ or fault),
                    step,
                )
                self._latest.delete(broken)
            return restored.state, progress
        raise errors[0]

    def _progress(self, step: int, content: Any) -> Progress:
        try:
            return Progress.from_json(content)
        except ValueError as error:
            raise damage_error(self._latest.directory / str(step), error) from error

    def save_best(self, step: int, params: Any) -> None:
        """Saves the parameters as the best so far."""
        # A run that stopped between its best and its latest checkpoint comes by here again;
        # Orbax takes no step that isn't above the ones it has.
        others = [other for other in self._best.all_steps() if other >= step]
        if others == [step]:
            # The same parameters: deleting them first would leave none to a kill in between.
            return
        args = ocp.args.Composite(params=ocp.args.StandardSave(params))
        with self._saving():
            for other in others:
                self._best.delete(other)
            self._best.save(step, args=args)

    def restore_best(self, abstract_params: Any) -> tuple[int, Any]:
        """Step and parameters of the best checkpoint.

        Raises:
            UserError: there is none yet, it can't be read, or it is of another model.
        """
        step = self._best_step()
        args = ocp.args.Composite(params=ocp.args.StandardRestore(abstract_params))
        restored = self._restore(self._best, step, "params", abstract_params, args)
        return step, restored.params

    def read_best(self) -> tuple[int, Any]:
        """Step and parameters of the best checkpoint of whatever model, as NumPy arrays.

        Every process reads them all.

        Raises:
            UserError: there is none yet, or it can't be read.
        """
        step = self._best_step()
        folder = self._best.directory / str(step)
        try:
            # What is there takes the place of these, whose memory is never touched.
            stored = jax.tree.map(
                lambda leaf: np.empty(leaf.shape, leaf.dtype), _metadata(folder / "params")
            )
            args = ocp.args.Composite(params=ocp.args.StandardRestore(stored))
            return step, self._best.restore(step, args=args).params
        except Exception as error:  # as in `_restore`
            raise damage_error(folder, error) from error

    def _best_step(self) -> int:
        step: int | None = self._best.latest_step()
        if step is None:
            raise UserError(
                f"{self._best.directory}: no checkpoint yet: train first, at least until the "
                "first validation"
            )
        return step

    def _restore(
        self,
        manager: ocp.CheckpointManager,
        step: int,
        item: str,
        abstract: Any,
        args: ocp.args.Composite,
    ) -> Any:
        """What the checkpoint of `step` holds; UserError where it can't be read or doesn't fit."""
        folder = manager.directory / str(step)
        try:
            check_model(folder.parent, _metadata(folder / item), abstract)
            return manager.restore(step, args=args)
        except UserError:
            raise
        except Exception as error:  # whatever Orbax and TensorStore say of a damaged file
            raise damage_error(folder, error) from error

    def wait(self) -> None:
        """Waits until all that was saved is on disk."""
        with self._saving():
            for manager in (self._best, self._latest):
                manager.wait_until_finished()

    @contextlib.contextmanager
    def _saving(self) -> Iterator[None]:
        """What the disk refuses becomes UserError; it may come up only at the next save."""
        try:
            yield
        except Exception as error:
            reason = disk_reason(error)
            if reason is None:
                raise
            folder = self._latest.directory
            steps = [int(path.name) for path in folder.iterdir() if path.name.isdigit()]
            left = f"that of step {max(steps)} is intact" if steps else "none is there yet"
            raise UserError(
                f"{folder.parent}: a checkpoint cannot be written ({reason}); {left}: mend "
                "the disk, then give the same command again"
            ) from error

    def close(self) -> None:
        """Waits until all is on disk, and ends Orbax's threads."""
        self.wait()
        for manager in (self._best, self._latest):
            manager.close()


def has_latest(latest: Path) -> bool:
    """Whether this folder has a checkpoint to go on from; makes nothing."""
    manager = _manager(latest.absolute(), 1, read_only=True)
    try:
        return manager.latest_step() is not None
    finally:
        manager.close()


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


def _metadata(folder: Any) -> Any:
    """The tree that was saved in `folder`: shapes and types in the place of arrays."""
    with ocp.StandardCheckpointer() as checkpointer:
        return checkpointer.metadata(folder).item_metadata.tree


def _manager(directory: Path, keep: int, read_only: bool) -> ocp.CheckpointManager:
    if read_only:
        return ocp.CheckpointManager(
            directory, options=ocp.CheckpointManagerOptions(read_only=True)
        )
    options = ocp.CheckpointManagerOptions(
        preservation_policy=preservation_policy.LatestN(keep),
        enable_async_checkpointing=True,
    )
    return ocp.CheckpointManager(directory, options=options)


def _clean(folder: Path) -> None:
    """Takes away what a killed run left unfinished.

    Orbax would do so in a thread, which fails with a traceback where the process ends early.
    """
    for unfinished in folder.glob("*.orbax-checkpoint-tmp"):
        shutil.rmtree(unfinished, ignore_errors=True)
