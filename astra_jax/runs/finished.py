"""How a run ended: its summary, and the answer to the same command once it is there."""

import json
import logging
from collections.abc import Callable
from typing import Any

import jax

from astra_jax.config.saved import differences, to_json
from astra_jax.devices import ask_first_process, is_first_process, make_mesh, replicated
from astra_jax.files import write_atomically
from astra_jax.model import ModelConfig, SpottingModel, abstract_params, count_parameters
from astra_jax.runs.folder import RunFolder
from astra_jax.runs.settings import Settings
from astra_jax.training.checkpoint_files import read_progress
from astra_jax.training.state import Progress

_OTHERS = ("parameters", "devices", "device_kind")

_log = logging.getLogger(__name__)


def find_finished(
    settings: Settings, folder: RunFolder, make_model: Callable[[ModelConfig], SpottingModel]
) -> dict[str, Any] | None:
    """The summary of the run in `folder`; None where it isn't finished, or its config is gone.

    Read are the progress of its newest checkpoint, its config and its summary: no data, no state,
    which may be gone by now. The config is written anew where it differs (the run's data may lie
    elsewhere now), and a summary that is gone or damaged.

    Raises:
        UserError: the checkpoint can't be read just now.
    """
    found = read_progress(folder.latest_checkpoints)
    finished = found is not None and found[1].finished and folder.config_path.exists()
    if not ask_first_process(finished):
        return None
    if found is None or not found[1].finished:
        # Another process may see the files of the first one late: it ends with that one.
        return folder.summary() or {}
    _log.info("%s: this run is finished; evaluate it, or choose another --workdir", folder)
    if is_first_process() and differences(settings.config, folder.config()):
        write_atomically(folder.config_path, to_json(settings.config))
    step, progress = found
    summary = folder.summary()
    if summary is None or not _is_of(summary, step, progress):
        params = abstract_params(make_model(settings.model), replicated(make_mesh()))
        summary = summarize(step, progress, params)
        if is_first_process():
            write_summary(folder, summary)
    return summary


def summarize(step: int, progress: Progress, params: Any) -> dict[str, Any]:
    """The content of a run's summary; `params`: whatever has their shapes."""
    return {
        **_outcome(step, progress),
        "parameters": count_parameters(params),
        "devices": jax.device_count(),
        "device_kind": jax.devices()[0].device_kind,
    }


def _is_of(summary: dict[str, Any], step: int, progress: Progress) -> bool:
    """Whether a summary is whole, and of this end: a run may have ended anew after a kill."""
    outcome = _outcome(step, progress)
    whole = summary.keys() >= {*outcome, *_OTHERS}
    # As text: a score that is no number differs from itself.
    return whole and json.dumps([summary[key] for key in outcome]) == json.dumps(
        [*outcome.values()]
    )


def _outcome(step: int, progress: Progress) -> dict[str, Any]:
    return {
        "best_epoch": progress.best_epoch,
        "best_validation_tight": progress.best_score,
        "steps": step,
        "epochs": progress.epochs,
        "seconds": round(progress.seconds, 1),
    }


def write_summary(folder: RunFolder, summary: dict[str, Any]) -> None:
    """Writes the summary into the run's folder."""
    write_atomically(folder.summary_path, json.dumps(summary, indent=1) + "\n")
