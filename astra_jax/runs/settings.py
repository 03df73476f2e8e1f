"""Splits a config into each room's own settings: the whole config goes no farther than this.

Below `runs/` nothing knows the whole config. Every room takes frozen dataclasses, made here of the
sections that it needs.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict, FrozenConfigDict

from astra_jax.config.check import check
from astra_jax.config.load import copy_config, freeze
from astra_jax.config.saved import check_left_out, differences, may_differ
from astra_jax.data.cache import is_wanted
from astra_jax.data.loader import StreamConfig
from astra_jax.data.mixup import MixupConfig
from astra_jax.data.simulation.writer import SimulationSpec
from astra_jax.data.sources import DataSpec, read_periods
from astra_jax.data.targets import ClipConfig, TargetSpec
from astra_jax.errors import UserError
from astra_jax.model import ModelConfig
from astra_jax.runs.folder import RunFolder
from astra_jax.spotting.inference import InferenceConfig
from astra_jax.training.checkpoint_files import has_latest, read_progress
from astra_jax.training.loop import TrainingConfig
from astra_jax.training.losses import LossConfig
from astra_jax.training.optimizer import OptimizerConfig
from astra_jax.training.trackers import TrackersConfig

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """The resolved config of a run, what of it stands alone, and the settings of each room."""

    config: FrozenConfigDict
    seed: int
    init_from: str | None
    vggish_file: str | None
    freeze: tuple[str, ...]
    simulation: SimulationSpec | None
    splits: dict[str, str | None]
    data: DataSpec
    in_memory: bool
    stream: StreamConfig
    model: ModelConfig
    loss: LossConfig
    optimizer: OptimizerConfig
    training: TrainingConfig
    inference: InferenceConfig
    frame_rate: int
    trackers: TrackersConfig
    compilation_cache: str | None

    @property
    def simulation_root(self) -> Path:
        """Where simulated matches lie, whatever root their labels are read from."""
        return Path(self.config.data.root).expanduser()

    @classmethod
    def from_config(cls, config: FrozenConfigDict) -> "Settings":
        """The settings of a resolved config; each room checks its own values.

        Raises:
            UserError: naming the key.
        """
        sections: dict[str, Any] = config.to_dict()
        simulation = sections["simulation"]
        data = DataSpec.from_config(sections["data"])
        num_classes = len(data.classes)
        clip = ClipConfig.from_config(sections["clip"])
        targets = TargetSpec.from_config(sections["targets"], clip, num_classes)
        training = TrainingConfig.from_config(sections["training"])
        mixup = MixupConfig.from_config(sections["mixup"])
        batch_size = training.batch_size
        return cls(
            config=config,
            seed=config.seed,
            init_from=config.init_from,
            vggish_file=config.model.audio.init_from,
            freeze=tuple(config.freeze),
            simulation=None if simulation is None else SimulationSpec.from_config(simulation),
            splits=sections["data"]["splits"],
            data=data,
            in_memory=is_wanted(sections["data"]["cache"]),
            stream=StreamConfig.from_config(
                sections["data"], config.seed, batch_size, clip, targets, mixup
            ),
            model=ModelConfig.from_config(sections["model"], data, clip, _default_dtype()),
            loss=LossConfig.from_config(sections["loss"], targets),
            optimizer=OptimizerConfig.from_config(
                sections["optimizer"], training.epochs, batch_size
            ),
            training=training,
            inference=InferenceConfig.from_config(sections["inference"], clip, num_classes),
            frame_rate=config.evaluation.frame_rate,
            trackers=TrackersConfig.from_config(sections["logging"]),
            compilation_cache=sections["training"]["compilation_cache"],
        )


def resolve(config: ConfigDict, folder: RunFolder, **changes: Any) -> FrozenConfigDict:
    """A config as a run in `folder` uses it, which nobody changes from here on.

    Simulated matches lie in the run's folder where the config names no `data.root`. `changes` are
    other values of keys at the top.

    Raises:
        UserError: naming a key that is missing or unknown, or whose value it can't have.
    """
    check(config)
    resolved = copy_config(config)
    with resolved.unlocked(), resolved.ignore_type():
        for key, value in changes.items():
            resolved[key] = value
        # In whatever order they are given they are the same run's.
        resolved.data.periods = read_periods(resolved.data.periods)
        if resolved.simulation is not None and resolved.data.root is None:
            resolved.data.root = str(folder.matches.absolute())
    return freeze(resolved)


def settings_for_training(config: ConfigDict, folder: RunFolder) -> Settings:
    """The settings of a training in `folder`, checked against what the folder holds.

    Raises:
        UserError: a value that can't be used, or a folder that is no place for this run.
    """
    folder.check_is_no_file()
    init_from = _recorded_init_from(config, folder)
    settings = Settings.from_config(resolve(config, folder, init_from=init_from))
    try:
        settings.training.check_devices(jax.device_count())
        settings.trackers.check_installed()
    except UserError:
        found = read_progress(folder.latest_checkpoints)
        if found is None or not found[1].finished:  # a finished run computes nothing
            raise
    _check_folder(settings.config, folder)
    return settings


def _recorded_init_from(config: ConfigDict, folder: RunFolder) -> str | None:
    """`init_from` as recorded in the folder, where a run resumes there; else the config's.

    A run that resumes doesn't read it again, wherever it lies now. Where none was recorded, or none
    is named, `_check_folder` judges.
    """
    named: str | None = config.get("init_from")
    if (
        named is None
        or not folder.config_path.exists()
        or not has_latest(folder.latest_checkpoints)
    ):
        return named
    began: str | None = folder.config().init_from
    if began is not None and began != named:
        _log.info(
            "%s: goes on from its own checkpoint, begun from %s: init_from %s is not read",
            folder,
            began,
            named,
        )
        return began
    return named


def _check_folder(config: FrozenConfigDict, folder: RunFolder) -> None:
    """Raises UserError for a folder that is another run's: only what `may_differ` names may."""
    if folder.is_imported():
        # A training can't have left these weights, nor resume from them.
        raise UserError(
            f"{folder}: holds imported weights, which nothing trains over: to start from them "
            f"give --config.init_from={folder} and another --workdir"
        )
    if folder.holds_seeds():
        raise UserError(
            f"{folder}: holds the runs of several seeds: give --seeds, or another --workdir"
        )
    path = folder.config_path
    if not path.exists() or not folder.checkpoints.exists():
        return
    of_run = folder.config()
    check_left_out(path)
    changed = [key for key in differences(config, of_run) if not may_differ(key)]
    if changed:
        raise UserError(
            f"{path}: the run in this folder has another config ({', '.join(changed)} differ): "
            "use its config, or another --workdir"
        )


def _default_dtype() -> str:
    """bfloat16 on GPU and TPU, float32 on a CPU."""
    return "float32" if jax.default_backend() == "cpu" else "bfloat16"
