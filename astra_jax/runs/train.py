"""A training from its config to its summary, from top to bottom."""

import contextlib
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from astra_jax.config.saved import differences, plain, to_json
from astra_jax.data.normalization import save_normalizations
from astra_jax.devices import host_copy, is_first_process, replicated
from astra_jax.errors import UserError
from astra_jax.files import remove_unfinished, write_atomically
from astra_jax.model import count_parameters
from astra_jax.runs import provenance
from astra_jax.runs.components import USUAL, Components, Computation, build
from astra_jax.runs.folder import RunFolder
from astra_jax.runs.lock import lock_folder
from astra_jax.runs.memory import TRAINING, explain_shortage
from astra_jax.runs.prepare import Prepared, prepare
from astra_jax.runs.settings import Settings, settings_for_training
from astra_jax.training.checkpoints import Checkpoints
from astra_jax.training.freezing import partition
from astra_jax.training.interruption import Interruption
from astra_jax.training.journal import Journal
from astra_jax.training.loop import Trainer
from astra_jax.training.optimizer import learning_rate_schedule
from astra_jax.training.state import Progress, TrainState, with_params
from astra_jax.training.trackers import TrackedRun, Trackers

_log = logging.getLogger(__name__)


def train(
    config: ConfigDict,
    workdir: Path,
    at_once: Callable[[], None] = lambda: None,
    components: Components = USUAL,
) -> dict[str, Any]:
    """Trains `config` in `workdir`, or goes on where an earlier call stopped.

    Writes what `runs.folder` lists, and returns the content of the summary. `at_once` is called
    before a signal ends the process with nothing to save. `components`: what the run is computed
    with.

    Raises:
        UserError: anything a user can mend: files, config values, a workdir of another run.
        Interrupted: a signal came; all is saved.
    """
    folder = RunFolder(workdir)
    # All that can be wrong with a config is found out before anything is written.
    settings = settings_for_training(config, folder)
    # Only the first process takes the lock: the others wait for it where they synchronise.
    lock = lock_folder(folder) if is_first_process() else contextlib.nullcontext(lambda: None)
    with lock as release_lock:

        def before_exit() -> None:
            release_lock()
            at_once()

        interruption = Interruption(at_once=before_exit)
        with interruption.watch(), explain_shortage(TRAINING):
            summary = _train(settings, folder, interruption, components)
    # A signal that came too late to stop the run still ends what would come after it.
    interruption.check()
    return summary


def _train(
    settings: Settings, folder: RunFolder, interruption: Interruption, components: Components
) -> dict[str, Any]:
    """`train` once the lock is held: data, state, steps, summary."""
    if is_first_process():
        remove_unfinished(folder.path)
    prepared = prepare(settings, folder, components.make_model(settings.model))
    computation = build(settings, prepared.stream.steps_per_epoch, components)
    with _open_checkpoints(folder) as checkpoints:
        state, progress = _restore_or_start(computation, checkpoints, prepared)
        validate = components.make_validate(
            settings,
            prepared.validation,
            interruption,
            components.compile_apply(computation.model),
            components.make_local_mesh,
        )
        trainer = components.make_trainer(
            config=settings.training,
            workdir=folder.path,
            stream=prepared.stream,
            step=computation.step,
            mesh=computation.mesh,
            state=state,
            progress=progress,
            checkpoints=checkpoints,
            journal=_open_journal(settings, folder, prepared),
            validate=validate,
            interruption=interruption,
            put=components.put_batch,
        )
        if progress.finished:
            if (summary := _finished_summary(settings, folder, trainer)) is not None:
                return summary
        else:
            _log_start(settings, folder, prepared, state)
        if is_first_process():
            _write_run_files(settings, folder, prepared, trainer)
        # Keep no reference: each step donates the state before it, and another run's parameters
        # have done their part.
        del prepared, computation, state
        trainer.run()
        summary = _summarize(trainer)
        if is_first_process():
            write_atomically(folder.summary_path, json.dumps(summary, indent=1) + "\n")
        return summary


@contextlib.contextmanager
def _open_checkpoints(folder: RunFolder) -> Iterator[Checkpoints]:
    """The run's checkpoints, closed at the end, after an error too."""
    checkpoints = Checkpoints(folder.latest_checkpoints, folder.best_checkpoints)
    try:
        yield checkpoints
    except BaseException:
        # Closing waits for all processes: it would hang where only this one failed.
        if jax.process_count() == 1:
            with contextlib.suppress(UserError):  # a full disk's, which was raised already
                checkpoints.close()
        raise
    checkpoints.close()


def _restore_or_start(
    computation: Computation, checkpoints: Checkpoints, prepared: Prepared
) -> tuple[TrainState, Progress]:
    """The newest checkpoint; where there is none the fresh state, or what it is to start from."""
    if checkpoints.latest_step() is None:
        if prepared.warm_start is None:
            return computation.state, Progress()
        params = prepared.warm_start(host_copy(computation.state.params))
        return with_params(computation.state, params, computation.mesh), Progress()
    sharding = replicated(computation.mesh)
    abstract = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        computation.state,
    )
    state, progress = checkpoints.restore_latest(abstract)
    return state, progress


def _open_journal(settings: Settings, folder: RunFolder, prepared: Prepared) -> Journal:
    """The run's journal: metrics file, progress bar, trackers."""
    steps_per_epoch = prepared.stream.steps_per_epoch
    tracked = TrackedRun(
        name=folder.path.absolute().name,
        config=plain(settings.config),
        tensorboard_folder=folder.tensorboard,
        wandb_folder=folder.path,
        run_id_file=folder.tracker_id_path,
    )
    return Journal(
        folder.metrics_path,
        steps_per_epoch,
        settings.training.epochs * steps_per_epoch,
        settings.training.batch_size,
        learning_rate_schedule(settings.optimizer, steps_per_epoch),
        lambda step: Trackers(settings.trackers, tracked, step),
    )


def _log_start(
    settings: Settings, folder: RunFolder, prepared: Prepared, state: TrainState
) -> None:
    """Says what is trained, on what."""
    trained, _ = partition(state.params, settings.freeze)
    frozen = f", {count_parameters(trained):,} of them trained" if settings.freeze else ""
    _log.info(
        "%s: %s parameters%s, %d match(es), %d clips an epoch, %d device(s) (%s); compiling",
        folder,
        f"{count_parameters(state.params):,}",
        frozen,
        len({half.match for half in prepared.halves}),
        prepared.stream.steps_per_epoch * settings.training.batch_size,
        jax.device_count(),
        jax.devices()[0].device_kind,
    )
    if settings.training.epochs == 1 and settings.optimizer.schedule == "epoch":
        _log.warning(
            "training.epochs is 1, and the last epoch trains at a rate of 0: nothing is "
            "learned; give it more, or optimizer.schedule=step"
        )


def _finished_summary(
    settings: Settings, folder: RunFolder, trainer: Trainer
) -> dict[str, Any] | None:
    """What a finished run wrote at its end; None where that is gone or damaged.

    The config is written anew where it differs: the run's data may lie elsewhere now.
    """
    _log.info("%s: this run is finished; evaluate it, or choose another --workdir", folder)
    path = folder.config_path
    outdated = not path.exists() or differences(settings.config, folder.config())
    if is_first_process() and outdated:
        write_atomically(path, to_json(settings.config))
    summary = folder.summary()
    complete = summary is not None and summary.keys() >= _summarize(trainer).keys()
    return summary if complete else None


def _write_run_files(
    settings: Settings, folder: RunFolder, prepared: Prepared, trainer: Trainer
) -> None:
    """Config, normalisation and provenance, into the run's folder."""
    write_atomically(folder.config_path, to_json(settings.config))
    save_normalizations(folder.normalization_path, prepared.normalizations)
    if not trainer.progress.finished:
        data = provenance.fingerprint(prepared.data_halves)
        provenance.add_start(folder.provenance_path, data, step=int(trainer.state.step))


def _summarize(trainer: Trainer) -> dict[str, Any]:
    """The content of the run's summary."""
    progress, steps = trainer.progress, int(trainer.state.step)
    return {
        "best_epoch": progress.best_epoch,
        "best_validation_tight": progress.best_score,
        "steps": steps,
        "epochs": steps // trainer.stream.steps_per_epoch,
        "parameters": count_parameters(trainer.state.params),
        "seconds": round(progress.seconds, 1),
        "devices": jax.device_count(),
        "device_kind": jax.devices()[0].device_kind,
    }
