"""A training from its config to its summary, from top to bottom."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from astra_jax.config.saved import plain, to_json
from astra_jax.data.cache import close_all
from astra_jax.data.normalization import save_normalizations
from astra_jax.devices import host_copy, in_32_bits, is_first_process
from astra_jax.errors import UserError
from astra_jax.files import remove_unfinished, write_atomically
from astra_jax.model import count_parameters
from astra_jax.runs import provenance
from astra_jax.runs.ahead import compile_ahead
from astra_jax.runs.compilation_cache import keeps_programs
from astra_jax.runs.components import USUAL, Components, Computation, build
from astra_jax.runs.finished import find_finished, summarize, write_summary
from astra_jax.runs.folder import RunFolder
from astra_jax.runs.lock import lock_folder
from astra_jax.runs.memory import TRAINING, explain_shortage
from astra_jax.runs.prepare import Prepared, prepare
from astra_jax.runs.run_log import RunLog, keep_log
from astra_jax.runs.settings import Settings, settings_for_training
from astra_jax.runs.waiting import says_what_takes_long
from astra_jax.training.checkpoints import Checkpoints
from astra_jax.training.freezing import partition
from astra_jax.training.interruption import Interruption
from astra_jax.training.journal import Journal
from astra_jax.training.loop import Trainer
from astra_jax.training.optimizer import learning_rate_at
from astra_jax.training.profile import Profile
from astra_jax.training.state import Progress, TrainState, with_params
from astra_jax.training.trackers import TrackedRun, Trackers

_log = logging.getLogger(__name__)


@in_32_bits
def train(
    config: ConfigDict,
    workdir: Path,
    at_once: Callable[[], None] = lambda: None,
    components: Components = USUAL,
    profile_steps: int = 0,
) -> dict[str, Any]:
    """Trains `config` in `workdir`, or goes on where an earlier call stopped.

    Writes what `runs.folder` lists, and returns the content of the summary. `at_once` is called
    before a signal ends the process with nothing to save. `components`: what the run is computed
    with. `profile_steps`: how many steps are traced, into the folder's `profile`.

    Raises:
        UserError: anything a user can mend: files, config values, a workdir of another run.
        Interrupted: a signal came; all is saved.
    """
    folder = RunFolder(workdir)
    # All that can be wrong with a config is found out before anything is written.
    settings = settings_for_training(config, folder)
    # Only the first process takes the lock: the others wait for it where they synchronise.
    lock = lock_folder(folder) if is_first_process() else contextlib.nullcontext(lambda: None)
    with keep_log(folder) as log, lock as release_lock:

        def before_exit() -> None:
            close_all()
            release_lock()
            at_once()

        interruption = Interruption(at_once=before_exit, tell=log.say)
        with log.tells_the_end():
            kept = keeps_programs(settings.compilation_cache)
            with interruption.watch(), kept, explain_shortage(TRAINING):
                summary = _train(settings, folder, interruption, components, log, profile_steps)
            # A signal that came too late to stop the run still ends what would come after it.
            interruption.check()
    return summary


def _train(
    settings: Settings,
    folder: RunFolder,
    interruption: Interruption,
    components: Components,
    log: RunLog,
    profile_steps: int,
) -> dict[str, Any]:
    """`train` once the lock is held: data, state, steps, summary."""
    if (found := find_finished(settings, folder, components.make_model)) is not None:
        if profile_steps:
            _log.warning("--profile: no step is left to be traced")
        return found
    log.go_on()
    if is_first_process():
        remove_unfinished(folder.path)
    prepared = prepare(settings, folder, components.make_model(settings.model))
    computation = build(settings, prepared.stream.steps_per_epoch, components)
    step = compile_ahead(computation, prepared.stream)
    with prepared.cache, _open_checkpoints(folder) as checkpoints:
        state, progress = _restore_or_start(computation, checkpoints, prepared)
        validate = components.make_validate(
            settings,
            prepared.validation,
            interruption,
            components.make_programs(computation.model, components.make_local_mesh()),
        )
        journal = _open_journal(settings, folder, prepared, log)
        trainer = components.make_trainer(
            config=settings.training,
            workdir=folder.path,
            stream=prepared.stream,
            step=step,
            mesh=computation.mesh,
            state=state,
            progress=progress,
            checkpoints=checkpoints,
            journal=journal,
            validate=validate,
            interruption=interruption,
            put=components.put_batch,
            profile=_make_profile(folder, profile_steps, journal),
        )
        _log_start(settings, folder, prepared, trainer, validated=validate is not None)
        if validate is not None and not progress.finished:
            # The first validation comes hours later: what would fail there fails here.
            with says_what_takes_long("trying a batch of the validation"):
                validate.try_out(state.eval_params)
        if is_first_process():
            _write_run_files(settings, folder, prepared, trainer)
            log.open()
        # Keep no reference: each step donates the state before it, and another run's parameters
        # have done their part.
        del prepared, computation, step, state
        trainer.run()
        summary = summarize(int(trainer.state.step), trainer.progress, trainer.state.params)
        if is_first_process():
            write_summary(folder, summary)
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
            return computation.draw_state(), Progress()
        fresh = computation.draw_state()
        params = prepared.warm_start(host_copy(fresh.params))
        return with_params(fresh, params, computation.mesh), Progress()
    return checkpoints.restore_latest(computation.abstract_state())


def _open_journal(
    settings: Settings, folder: RunFolder, prepared: Prepared, log: RunLog
) -> Journal:
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
        learning_rate_at(settings.optimizer, steps_per_epoch),
        lambda step: Trackers(settings.trackers, tracked, step),
        tell=log.say,
        every_steps=settings.training.log_every_steps,
    )


def _make_profile(folder: RunFolder, steps: int, journal: Journal) -> Profile | None:
    """What traces so many steps; one process of several is enough."""
    if not steps or not is_first_process():
        return None
    return Profile(folder.profile, steps, journal.say)


def _log_start(
    settings: Settings, folder: RunFolder, prepared: Prepared, trainer: Trainer, validated: bool
) -> None:
    """Says what is trained, on what, and what comes before the first step."""
    if trainer.progress.finished:
        _log.info("%s: this run is finished; what it lacks is written anew", folder)
        return
    params = trainer.state.params
    trained, _ = partition(params, settings.freeze)
    frozen = f", {count_parameters(trained):,} of them trained" if settings.freeze else ""
    _log.info(
        "%s: %s parameters%s, %d match(es), %d clips an epoch, %d device(s) (%s); compiling%s",
        folder,
        f"{count_parameters(params):,}",
        frozen,
        len({half.match for half in prepared.halves}),
        prepared.stream.steps_per_epoch * settings.training.batch_size,
        jax.device_count(),
        jax.devices()[0].device_kind,
        ", and trying a batch of the validation" if validated else "",
    )
    if settings.training.epochs == 1 and settings.optimizer.schedule == "epoch":
        _log.warning(
            "training.epochs is 1, and the last epoch trains at a rate of 0: nothing is "
            "learned; give it more, or optimizer.schedule=step"
        )


def _write_run_files(
    settings: Settings, folder: RunFolder, prepared: Prepared, trainer: Trainer
) -> None:
    """Config, normalisation and provenance, into the run's folder."""
    write_atomically(folder.config_path, to_json(settings.config))
    save_normalizations(folder.normalization_path, prepared.normalizations)
    if not trainer.progress.finished:
        data = provenance.fingerprint(prepared.data_halves)
        provenance.add_start(folder.provenance_path, data, step=int(trainer.state.step))
