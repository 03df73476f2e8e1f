"""A run and its folder: puts training, spotting and evaluation together."""

import contextlib
import dataclasses
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from astra_jax.runs import memory
from astra_jax.runs import provenance
from astra_jax.config.saved import differences
from astra_jax.config.saved import from_json
from astra_jax.config.saved import may_differ
from astra_jax.config.saved import to_json
from astra_jax.data import normalization
from astra_jax.errors import UserError
from astra_jax.evaluation.metrics import average_maps
from astra_jax.runs.evaluate import evaluate
from astra_jax.files import read_mapping
from astra_jax.files import remove_unfinished
from astra_jax.files import write_atomically
from astra_jax.runs.lock import locked
from astra_jax.model import ASTRA
from astra_jax.runs.prepare import Prepared
from astra_jax.runs.prepare import check_config
from astra_jax.runs.prepare import prepare
from astra_jax.spotting.inference import Predictor
from astra_jax.spotting.matches import predict_matches
from astra_jax.training.checkpoints import has_latest
from astra_jax.training.interruption import Interruption
from astra_jax.training.loop import Trainer
from astra_jax.training.loop import Validate
from astra_jax.devices import host_copy

__all__ = ["evaluate", "train"]

_log = logging.getLogger(__name__)


def train(
    config: ConfigDict, workdir: Path, at_once: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """Trains `config` in `workdir`, or goes on where an earlier call stopped.

    Writes `config.json`, `provenance.json`, `checkpoints/`, `metrics.jsonl` and at the end
    `summary.json`, whose content it returns. `at_once` is called before a signal ends the process
    with nothing to save.

    Raises:
        UserError: anything a user can mend: files, config values, a workdir of another run.
        Interrupted: a signal came; all is saved.
    """
    workdir = workdir.expanduser()
    if workdir.exists() and not workdir.is_dir():
        raise UserError(f"{workdir}: is a file: choose a folder for --workdir")
    # All that can be wrong with a config is found out before anything is written.
    check_config(config)
    _check_not_imported(workdir)
    check_same_run(config, workdir)
    # One process speaks for all: the others wait for it wherever they meet.
    lock = locked(workdir) if jax.process_index() == 0 else contextlib.nullcontext(lambda: None)
    with lock as give_back:

        def leave() -> None:
            give_back()
            at_once()

        interruption = Interruption(at_once=leave)
        with interruption.watched():
            summary = _train(config, workdir, interruption)
    # A signal that came too late to stop the run still ends what would come after it.
    interruption.check()
    return summary


def _train(config: ConfigDict, workdir: Path, interruption: Interruption) -> dict[str, Any]:
    """`train` in a folder that is ours."""
    if jax.process_index() == 0:
        remove_unfinished(workdir)
    prepared = prepare(config, workdir)
    validate = _validator(prepared, interruption)
    with memory.shortage(memory.TRAINING):
        trainer = Trainer(
            config,
            prepared.model_config,
            prepared.stream,
            workdir,
            validate,
            interruption,
            prepared.warm_start,
        )
        # It holds the parameters of another run, which have done their part.
        prepared = dataclasses.replace(prepared, warm_start=None)
        with trainer.closing():
            return _run(trainer, prepared)


def _run(trainer: Trainer, prepared: Prepared) -> dict[str, Any]:
    """The run itself, and the files of its folder beside the trainer's own."""
    workdir, config = trainer.workdir, prepared.config
    if trainer.progress.finished:
        _log.info("%s: this run is finished; evaluate it, or choose another --workdir", workdir)
        path = workdir / "config.json"
        # Its data may lie elsewhere now.
        outdated = not path.exists() or differences(config, from_json(path))
        if jax.process_index() == 0 and outdated:
            write_atomically(path, to_json(config))
        # Absent or damaged, it is written anew.
        summary = read_mapping(workdir / "summary.json")
        if summary is not None and summary.keys() >= _summary(trainer).keys():
            return summary
    else:
        _log.info(
            "%s: %s parameters%s, %d match(es), %d clips an epoch, %d device(s) (%s); compiling",
            workdir,
            f"{trainer.parameters:,}",
            f", {trainer.trained_parameters:,} of them trained" if config.freeze else "",
            len(prepared.halves) // 2,
            trainer.stream.steps_per_epoch * config.training.batch_size,
            jax.device_count(),
            jax.devices()[0].device_kind,
        )
        if config.training.epochs == 1 and config.optimizer.schedule == "epoch":
            _log.warning(
                "training.epochs is 1, and the last epoch trains at a rate of 0: nothing is "
                "learned; give it more, or optimizer.schedule=step"
            )
    if jax.process_index() == 0:
        _write_down(trainer, prepared)
    trainer.run()
    summary = _summary(trainer)
    if jax.process_index() == 0:
        write_atomically(workdir / "summary.json", json.dumps(summary, indent=1) + "\n")
    return summary


def _write_down(trainer: Trainer, prepared: Prepared) -> None:
    """Config, normalisation and provenance, into the run's folder."""
    workdir = trainer.workdir
    write_atomically(workdir / "config.json", to_json(prepared.config))
    normalization.save(workdir / normalization.FILE_NAME, prepared.normalizations)
    if not trainer.progress.finished:
        data = provenance.fingerprint(prepared.data_halves)
        provenance.add_start(workdir, data, step=int(trainer.state.step))


def _summary(trainer: Trainer) -> dict[str, Any]:
    progress = trainer.progress
    return {
        "best_epoch": progress.best_epoch,
        "best_validation_tight": progress.best_score,
        "steps": int(trainer.state.step),
        "epochs": int(trainer.state.step) // trainer.stream.steps_per_epoch,
        "parameters": trainer.parameters,
        "seconds": round(progress.seconds, 1),
        "devices": jax.device_count(),
        "device_kind": jax.devices()[0].device_kind,
    }


def _validator(prepared: Prepared, interruption: Interruption) -> Validate | None:
    """Scores of whole matches of the validation split, by the real inference."""
    validation, config, classes = prepared.validation, prepared.config, prepared.spec.classes
    if validation is None:
        return None
    model = ASTRA(prepared.model_config)
    predictor: Predictor | None = None

    def validate(params: Any) -> dict[str, float]:
        nonlocal predictor
        with memory.shortage(memory.EVALUATION):
            params = host_copy(params)
            if predictor is None:
                predictor = Predictor(config, model, params)
            else:
                predictor.replace_params(params)
            predictions = predict_matches(predictor, validation.halves, classes, interruption.check)
        blocks = average_maps(validation.labels, predictions, ("tight", "loose"), classes)
        tight, loose = blocks["tight"]["a_mAP"], blocks["loose"]["a_mAP"]
        return {"score": tight, "tight": tight, "loose": loose}

    return validate


def _keep_start(config: ConfigDict, workdir: Path) -> None:
    """Lets a run that goes on say what it began from, wherever that lies now: it isn't read again.

    One that began from nothing, or that goes on as if it had, is left to `_check_same_run`.
    """
    path = workdir / "config.json"
    if config.init_from is None or not path.exists() or not has_latest(workdir):
        return
    began = from_json(path).init_from
    if began is not None and began != config.init_from:
        _log.info(
            "%s: goes on from its own checkpoint, begun from %s: init_from %s is not read",
            *(workdir, began, config.init_from),
        )
        config.init_from = began


def _check_not_imported(workdir: Path) -> None:
    """Imported weights are none that a training of this folder could have left or go on from."""
    if provenance.imported(workdir):
        raise UserError(
            f"{workdir}: holds imported weights, which nothing trains over: to start from them "
            f"give --config.init_from={workdir} and another --workdir"
        )


def check_same_run(config: ConfigDict, workdir: Path) -> None:
    """Raises UserError for a folder that is another run's: only where the data lie may differ."""
    _keep_start(config, workdir)
    if any(workdir.glob("seed_*/config.json")):
        raise UserError(
            f"{workdir}: holds the runs of several seeds: give --seeds, or another --workdir"
        )
    path = workdir / "config.json"
    if not path.exists() or not (workdir / "checkpoints").exists():
        return
    changed = [key for key in differences(config, from_json(path)) if not may_differ(key)]
    if changed:
        raise UserError(
            f"{path}: the run in this folder has another config ({', '.join(changed)} differ): "
            "use its config, or another --workdir"
        )
