"""Checkpoints of a run, by Orbax: the latest to go on from, the best to predict with."""

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from astra_jax.errors import UserError


class Checkpoints:
    """`WORKDIR/checkpoints/latest` and `best`, each a step folder that is complete or absent.

    A latest checkpoint holds the whole training state and a small JSON of progress, a best
    one only the parameters. Saving goes on in the background while training does.
    """

    def __init__(self, workdir: Path, read_only: bool = False) -> None:
        """`read_only` makes and cleans no folder: a training may be at work in this one."""
        root = (workdir / "checkpoints").absolute()
        # One more than the newest: it is the way back where the newest can't be read.
        self._latest = _manager(root / "latest", 2, read_only)
        self._best = _manager(root / "best", 1, read_only)

    def latest_step(self) -> int | None:
        """The step of the newest complete checkpoint, None where there is none."""
        return self._latest.latest_step()

    def save_latest(self, step: int, state: Any, progress: dict[str, Any]) -> None:
        """Saves the state after `step` steps, unless it is there already."""
        if step in self._latest.all_steps():
            return
        # Its progress says which checkpoint is the best: a run killed with this one on disk
        # and that one not would go on, or be finished, without it.
        self._best.wait_until_finished()
        self._latest.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state), progress=ocp.args.JsonSave(progress)
            ),
        )

    def restore_latest(self, abstract_state: Any) -> tuple[Any, dict[str, Any]]:
        """State (placed as `abstract_state` says) and progress of the newest checkpoint.

        Raises:
            UserError: the checkpoint is of another model.
        """
        step = self.latest_step()
        self._check_model(self._latest, step, "state", abstract_state)
        try:
            restored = self._latest.restore(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardRestore(abstract_state),
                    progress=ocp.args.JsonRestore(),
                ),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise _other_model(self._latest.directory, error) from error
        return restored.state, restored.progress

    def save_best(self, step: int, params: Any) -> None:
        """Saves the parameters as the best so far."""
        # A run that stopped between its best and its latest checkpoint comes by here again;
        # Orbax takes no step that isn't above the ones it has.
        others = [other for other in self._best.all_steps() if other >= step]
        if others == [step]:
            # The same parameters: deleting them first would leave none to a kill in between.
            return
        for other in others:
            self._best.delete(other)
        self._best.save(step, args=ocp.args.Composite(params=ocp.args.StandardSave(params)))

    def restore_best(self, abstract_params: Any) -> tuple[int, Any]:
        """Step and parameters of the best checkpoint.

        Raises:
            UserError: there is none yet, or it is of another model.
        """
        step = self._best.latest_step()
        if step is None:
            raise UserError(
                f"{self._best.directory}: no checkpoint yet: train first, at least until the "
                "first validation"
            )
        self._check_model(self._best, step, "params", abstract_params)
        try:
            restored = self._best.restore(
                step, args=ocp.args.Composite(params=ocp.args.StandardRestore(abstract_params))
            )
        except (ValueError, KeyError, TypeError) as error:
            raise _other_model(self._best.directory, error) from error
        return step, restored.params

    def _check_model(
        self, manager: ocp.CheckpointManager, step: int | None, item: str, abstract: Any
    ) -> None:
        """Compares names and shapes: Orbax leaves tracebacks of its threads when it finds out."""
        with ocp.StandardCheckpointer() as checkpointer:
            folder = manager.directory / str(step) / item
            stored = _shapes(checkpointer.metadata(folder).item_metadata.tree)
        ours = _shapes(abstract)
        for name in sorted(stored.keys() | ours.keys()):
            if stored.get(name) != ours.get(name):
                shapes = (
                    f"{name} is {_shape(stored, name)} there, {_shape(ours, name)} in the config"
                )
                raise _other_model(manager.directory, ValueError(shapes))

    def close(self) -> None:
        """Waits until all is on disk."""
        for manager in (self._best, self._latest):
            manager.wait_until_finished()
            manager.close()


def _manager(directory: Path, keep: int, read_only: bool) -> ocp.CheckpointManager:
    if read_only:
        return ocp.CheckpointManager(
            directory, options=ocp.CheckpointManagerOptions(read_only=True)
        )
    options = ocp.CheckpointManagerOptions(
        preservation_policy=preservation_policy.LatestN(keep),
        cleanup_tmp_directories=True,
        enable_async_checkpointing=True,
    )
    return ocp.CheckpointManager(directory, options=options)


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


def _other_model(directory: Any, error: Exception) -> UserError:
    reason = " ".join(str(error).split())[:200]
    return UserError(
        f"{directory}: the checkpoint is of another model ({reason}): use the config it was "
        "trained with, or another --workdir"
    )
