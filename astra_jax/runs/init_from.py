"""What a run's parameters start from before step 0: VGGish's weights, another run's, or nothing."""

import contextlib
import logging
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from astra_jax.devices import make_mesh, replicated
from astra_jax.errors import UserError, join_some
from astra_jax.model import ModelConfig, SpottingModel, abstract_params, count_parameters
from astra_jax.runs.folder import RunFolder
from astra_jax.runs.settings import Settings
from astra_jax.torch_import.vggish import check_vggish, load_vggish
from astra_jax.training.checkpoint_files import has_latest
from astra_jax.training.checkpoints import Checkpoints
from astra_jax.training.freezing import check_freeze, frozen_names
from astra_jax.training.transfer import Outline, WarmStart, plan_transfer

_log = logging.getLogger(__name__)

_MOST_NAMES = 5


def read_warm_start(
    settings: Settings, folder: RunFolder, model: SpottingModel
) -> WarmStart | None:
    """What changes the fresh parameters of a run in `folder` before step 0; None: nothing.

    First VGGish's layers are taken from `config.model.audio.init_from`, then all that fits from the
    run that `config.init_from` names. Where the run has a checkpoint to go on from neither is
    read: they may be gone by then.

    Raises:
        UserError: one of them can't be read or doesn't fit, or `config.freeze` names nothing.
    """
    if settings.freeze:
        check_freeze(_fresh(model), settings.freeze)
    file, other = settings.vggish_file, settings.init_from
    if (file is None and other is None) or has_latest(folder.latest_checkpoints):
        return None
    starts: list[WarmStart] = []
    if file is not None:
        starts.append(_vggish_start(Path(file), settings.model))
    if other is not None:
        starts.append(_run_start(RunFolder(Path(other)), settings, folder, model))

    def start(params: Any) -> Any:
        for one in starts:
            params = one(params)
        return params

    return start


def _vggish_start(path: Path, model_config: ModelConfig) -> WarmStart:
    check_vggish(path, model_config)
    return lambda params: load_vggish(path, params)


def _run_start(
    other: RunFolder, settings: Settings, folder: RunFolder, model: SpottingModel
) -> WarmStart:
    """All that fits of the best checkpoint of the run in `other`; a message says what."""
    if other.path.resolve() == folder.path.resolve():
        raise UserError(f"config.init_from: {other} is this run's own folder: name another run's")
    try:
        outline, step, stored = _read_run(other)
    except UserError as error:
        raise UserError(f"config.init_from: {error}") from error
    fresh = _fresh(model)
    transfer = plan_transfer(fresh, stored, _outline(settings.config), outline)
    if not transfer.paths:
        raise UserError(
            f"config.init_from: {other}: no parameter of it fits this config's model: give "
            f"config.model the sizes in {other.config_path}"
        )
    size = count_parameters(fresh)
    _log.info(
        "init_from %s: %s of %s parameters are taken from its best checkpoint (step %d)",
        other,
        f"{transfer.count:,}",
        f"{size:,}",
        step,
    )
    if notes := transfer.notes(other.path):
        _log.info("%s", notes)
    if random := [n for n in frozen_names(fresh, settings.freeze) if n not in transfer.paths]:
        _log.warning(
            "config.freeze: %s start fresh and stay random, since frozen: freeze less if that "
            "isn't meant",
            join_some(random, _MOST_NAMES),
        )
    return lambda params: transfer.apply(params, stored)


def _fresh(model: SpottingModel) -> Any:
    """Shapes of the parameters, nothing computed."""
    return abstract_params(model, replicated(make_mesh()))


def _outline(config: ConfigDict) -> Outline:
    sections = config.to_dict()
    return Outline.from_config(sections["model"], sections["data"], sections["clip"])


def _read_run(folder: RunFolder) -> tuple[Outline, int, Any]:
    """What another run is of, and step and parameters of its best checkpoint."""
    try:
        outline = _outline(folder.config())
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{folder.config_path}: not a run's config ({error!r}): restore it"
        ) from error
    checkpoints = Checkpoints(folder.latest_checkpoints, folder.best_checkpoints, read_only=True)
    with contextlib.closing(checkpoints):
        return outline, *checkpoints.read_best()
