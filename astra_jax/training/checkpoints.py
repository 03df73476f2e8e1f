"""Checkpoints of a run, by Orbax: the latest to go on from, the best to predict with."""

import contextlib
import dataclasses
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from astra_jax.devices import is_first_process, wait_for_all
from astra_jax.errors import UserError, one_line
from astra_jax.training.checkpoint_faults import (
    DamagedCheckpoint,
    check_model,
    disk_reason,
    read_patiently,
)
from astra_jax.training.checkpoint_files import (
    clean,
    discard,
    put_aside,
    steps_in,
    write_progress,
)
from astra_jax.training.state import Progress

_log = logging.getLogger(__name__)


class Checkpoints:
    """The latest and the best of a run, two folders of step folders, each complete or absent.

    (One that a kill met while it was deleted is neither; it counts as damaged.) A latest
    checkpoint holds the whole training state and a small JSON of progress, a best one only the
    parameters. Saving goes on in the background while training does.

    The best checkpoint that the progress on disk tells of is on disk as well, whenever the process
    is killed: another one takes its place when a latest checkpoint that tells of it is complete.
    """

    def __init__(self, latest: Path, best: Path, read_only: bool = False) -> None:
        """`read_only` makes and cleans no folder: a training may be at work in these."""
        latest, best = latest.absolute(), best.absolute()
        if not read_only and is_first_process():
            for folder in (latest, best):
                clean(folder)
        self._latest_folder, self._best_folder = latest, best
        # One more than the newest: it is the way back where the newest can't be read.
        self._latest = _manager(latest, 2, read_only)
        self._best = _manager(best, None, read_only)
        # The newest one to keep, and the one that the last progress tells of.
        self._best_step: int | None = None
        self._told_step: int | None = None

    def latest_step(self) -> int | None:
        """The step of the newest complete checkpoint, None where there is none."""
        return self._latest.latest_step()

    def save_latest(self, step: int, state: Any, progress: Progress) -> None:
        """Saves the state after `step` steps.

        Of a step that is there already only the progress is written, in one move: the state is the
        one that was saved, or restored, as the run came by here before.
        """
        with self._saving():
            # The progress says which checkpoint is the best: a run killed with this one on disk
            # and that one not would go on, or be finished, without it.
            self._finish()
            # The end of an epoch whose validation was interrupted comes by here twice.
            if step in self._latest.all_steps():
                if is_first_process():
                    write_progress(self._latest_folder / str(step), progress)
                wait_for_all("the progress is written")
            else:
                args = ocp.args.Composite(
                    state=ocp.args.StandardSave(state),
                    progress=ocp.args.JsonSave(dataclasses.asdict(progress)),
                )
                self._latest.save(step, args=args)
            self._told_step = self._best_step

    def restore_latest(self, abstract_state: Any) -> tuple[Any, Progress]:
        """State (placed as `abstract_state` says) and progress of the newest readable checkpoint.

        Newer ones that are damaged are renamed, and a message says so.

        Raises:
            UserError: all are damaged, or one can't be read now or is of another model.
        """
        args = ocp.args.Composite(
            state=ocp.args.StandardRestore(abstract_state), progress=ocp.args.JsonRestore()
        )
        damaged: list[DamagedCheckpoint] = []
        for step in sorted(self._latest.all_steps(), reverse=True):
            folder = self._latest_folder / str(step)

            def read(step: int = step, folder: Path = folder) -> tuple[Any, Progress]:
                check_model(folder.parent, _metadata(folder / "state"), abstract_state)
                restored = self._latest.restore(step, args=args)
                return restored.state, Progress.from_json(restored.progress)

            try:
                found = read_patiently(folder, read)
            except DamagedCheckpoint as error:
                damaged.append(error)
                continue
            self._put_aside(damaged, step)
            return found
        raise damaged[0]

    def _put_aside(self, damaged: list[DamagedCheckpoint], instead: int) -> None:
        """Renames the newest checkpoints, of which these are the faults."""
        if not damaged:
            return
        steps = sorted(self._latest.all_steps(), reverse=True)
        if is_first_process():
            for step, fault in zip(steps, damaged, strict=False):
                folder = self._latest_folder / str(step)
                _log.warning(
                    "%s: the checkpoint is damaged (%s): kept as %s, going on from step %d",
                    folder,
                    one_line(fault.__cause__ or fault),
                    put_aside(folder).name,
                    instead,
                )
        wait_for_all("damaged checkpoints are put aside")
        self._latest.reload()

    def save_best(self, step: int, params: Any) -> None:
        """Saves the parameters as the best so far; the one before stays until that is told."""
        args = ocp.args.Composite(params=ocp.args.StandardSave(params))
        with self._saving():
            # A run that stopped between its best and its latest checkpoint comes by here again,
            # with the same parameters.
            if step not in self._best.all_steps():
                # By force: by itself Orbax takes no step that isn't above the ones it has.
                self._best.save(step, args=args, force=True)
        self._best_step = step

    def keep_best(self, step: int) -> None:
        """Deletes all best checkpoints but that of `step`, where it is there.

        For a run that goes on and was told that this one is the best: another process may have
        been killed before it could tell of a later one.
        """
        if step in self._best.all_steps():
            self._best_step = self._told_step = step
            with self._saving():
                self._finish()

    def _finish(self) -> None:
        """Waits until all is on disk; then deletes the best checkpoints that are so no more."""
        for manager in (self._best, self._latest):
            manager.wait_until_finished()
        if self._best_step is None:
            return
        # Later ones are of a history that a damaged checkpoint has ended.
        first, last = self._told_step or 0, self._best_step
        others = [step for step in self._best.all_steps() if not first <= step <= last]
        if others:
            if is_first_process():
                for step in others:
                    discard(self._best_folder / str(step))
            wait_for_all("earlier best checkpoints are deleted")
            self._best.reload()

    def restore_best(self, abstract_params: Any) -> tuple[int, Any]:
        """Step and parameters of the best checkpoint.

        Raises:
            UserError: there is none yet, it can't be read, or it is of another model.
        """
        step, folder = self._best_step_and_folder()
        args = ocp.args.Composite(params=ocp.args.StandardRestore(abstract_params))

        def read() -> Any:
            check_model(folder.parent, _metadata(folder / "params"), abstract_params)
            return self._best.restore(step, args=args).params

        return step, read_patiently(folder, read)

    def read_best(self) -> tuple[int, Any]:
        """Step and parameters of the best checkpoint of whatever model, as NumPy arrays.

        Every process reads them all.

        Raises:
            UserError: there is none yet, or it can't be read.
        """
        step, folder = self._best_step_and_folder()

        def read() -> Any:
            # What is there takes the place of these, whose memory is never touched.
            stored = jax.tree.map(
                lambda leaf: np.empty(leaf.shape, leaf.dtype), _metadata(folder / "params")
            )
            args = ocp.args.Composite(params=ocp.args.StandardRestore(stored))
            return self._best.restore(step, args=args).params

        return step, read_patiently(folder, read)

    def _best_step_and_folder(self) -> tuple[int, Path]:
        step: int | None = self._best.latest_step()
        if step is None:
            raise UserError(
                f"{self._best_folder}: no checkpoint yet: train first, at least until the "
                "first validation"
            )
        return step, self._best_folder / str(step)

    def wait(self) -> None:
        """Waits until all that was saved is on disk."""
        with self._saving():
            self._finish()

    @contextlib.contextmanager
    def _saving(self) -> Iterator[None]:
        """What the disk refuses becomes UserError; it may come up only at the next save."""
        try:
            yield
        except Exception as error:
            reason = disk_reason(error)
            if reason is None:
                raise
            folder = self._latest_folder
            steps = steps_in(folder)
            left = f"that of step {steps[-1]} is intact" if steps else "none is there yet"
            raise UserError(
                f"{folder.parent}: a checkpoint cannot be written ({reason}); {left}: mend "
                "the disk, then give the same command again"
            ) from error

    def close(self) -> None:
        """Waits until all is on disk, and ends Orbax's threads."""
        self.wait()
        for manager in (self._best, self._latest):
            manager.close()


def _metadata(folder: Path) -> Any:
    """The tree that was saved in `folder`: shapes and types in the place of arrays."""
    # Of the handler itself: a checkpointer turns most errors, those that pass too, into None.
    handler = ocp.StandardCheckpointHandler()
    with contextlib.closing(handler):
        return handler.metadata(folder).tree


def _manager(directory: Path, keep: int | None, read_only: bool) -> ocp.CheckpointManager:
    """Of the checkpoints in a folder; it keeps the `keep` newest ones, or all."""
    if read_only:
        return ocp.CheckpointManager(
            directory, options=ocp.CheckpointManagerOptions(read_only=True)
        )
    options = ocp.CheckpointManagerOptions(
        preservation_policy=preservation_policy.LatestN(keep)
        if keep
        else preservation_policy.PreserveAll(),
        enable_async_checkpointing=True,
    )
    return ocp.CheckpointManager(directory, options=options)
