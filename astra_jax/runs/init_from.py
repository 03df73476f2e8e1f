"""What a run's parameters start from before step 0: VGGish's weights, another run's, or nothing."""

import contextlib
import logging
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from astra_jax.config.saved import from_json
from astra_jax.errors import UserError
from astra_jax.model import ModelConfig
from astra_jax.training.checkpoints import Checkpoints
from astra_jax.training.checkpoints import has_latest
from astra_jax.training.freezing import check_freeze
from astra_jax.training.freezing import frozen_names
from astra_jax.model.initial_values import abstract_params
from astra_jax.devices import make_mesh
from astra_jax.model.initial_values import parameter_count
from astra_jax.devices import replicated
from astra_jax.training.transfer import Outline
from astra_jax.training.transfer import WarmStart
from astra_jax.training.transfer import match
from astra_jax.torch_import.vggish import check_vggish
from astra_jax.torch_import.vggish import load_vggish

_log = logging.getLogger(__name__)

_NAMED = 5


def warm_start_of(config: ConfigDict, model_config: ModelConfig, workdir: Path) -> WarmStart | None:
    """What changes the fresh parameters of a run in `workdir` before step 0; None: nothing.

    First VGGish's layers are taken from `config.model.audio.init_from`, then all that fits from the
    run that `config.init_from` names. Where `workdir` has a checkpoint to go on from neither is
    read: they may be gone by then.

    Raises:
        UserError: one of them can't be read or doesn't fit, or `config.freeze` names nothing.
    """
    if config.freeze:
        check_freeze(_fresh(model_config), config.freeze)
    file, other = config.model.audio.init_from, config.init_from
    if (file is None and other is None) or has_latest(workdir):
        return None
    starts: list[WarmStart] = []
    if file is not None:
        starts.append(_vggish_start(Path(file), model_config))
    if other is not None:
        starts.append(_run_start(Path(other).expanduser(), config, model_config, workdir))

    def start(params: Any) -> Any:
        for one in starts:
            params = one(params)
        return params

    return start


def _vggish_start(path: Path, model_config: ModelConfig) -> WarmStart:
    check_vggish(path, model_config)
    return lambda params: load_vggish(path, params)


def _run_start(
    other: Path, config: ConfigDict, model_config: ModelConfig, workdir: Path
) -> WarmStart:
    """All that fits of the best checkpoint of the run in `other`; a message says what."""
    if other.resolve() == workdir.expanduser().resolve():
        raise UserError(f"config.init_from: {other} is this run's own folder: name another run's")
    try:
        outline, step, stored = _read_run(other)
    except UserError as error:
        raise UserError(f"config.init_from: {error}") from error
    fresh = _fresh(model_config)
    found = match(fresh, stored, Outline.from_config(config), outline)
    if not found.paths:
        raise UserError(
            f"config.init_from: {other}: no parameter of it fits this config's model: give "
            f"config.model the sizes in {other / 'config.json'}"
        )
    size = parameter_count(fresh)
    _log.info(
        "init_from %s: %s of %s parameters are taken from its best checkpoint (step %d)",
        other,
        f"{found.count:,}",
        f"{size:,}",
        step,
    )
    if notes := found.notes(other):
        _log.info("%s", notes)
    if random := [n for n in frozen_names(fresh, config.freeze) if n not in found.paths]:
        more = f" and {len(random) - _NAMED} more" if len(random) > _NAMED else ""
        _log.warning(
            "config.freeze: %s%s start fresh and stay random, since frozen: freeze less if that "
            "isn't meant",
            ", ".join(random[:_NAMED]),
            more,
        )
    return lambda params: found.filled(params, stored)


def _fresh(model_config: ModelConfig) -> Any:
    """Shapes of the parameters, nothing computed."""
    return abstract_params(model_config, replicated(make_mesh()))


def _read_run(workdir: Path) -> tuple[Outline, int, Any]:
    """What the run in `workdir` is of, and step and parameters of its best checkpoint."""
    path = workdir / "config.json"
    try:
        outline = Outline.from_config(from_json(path))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: not a run's config ({error!r}): restore it") from error
    with contextlib.closing(Checkpoints(workdir, read_only=True)) as checkpoints:
        return outline, *checkpoints.read_best()
