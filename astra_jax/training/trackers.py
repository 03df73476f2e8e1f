"""What a run reports beside its own files: to TensorBoard, to Weights & Biases."""

import importlib
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from astra_jax.devices import is_first_process
from astra_jax.errors import UserError
from astra_jax.files import write_atomically


@dataclass(frozen=True)
class TrackersConfig:
    """Whether a run reports to TensorBoard; the project on Weights & Biases, None for no report."""

    tensorboard: bool = False
    wandb_project: str | None = None

    @classmethod
    def from_config(cls, logging: Mapping[str, Any]) -> "TrackersConfig":
        """Reads the config's section `logging`."""
        return cls(**logging)

    def check_installed(self) -> None:
        """Raises UserError where a package that is asked for is not installed."""
        if self.tensorboard:
            _package("tensorboardX", "config.logging.tensorboard", extra="tensorboard")
        if self.wandb_project:
            _package("wandb", "config.logging.wandb_project", extra="wandb")


@dataclass(frozen=True)
class TrackedRun:
    """What the trackers are told of a run.

    `run_id_file` keeps its id on Weights & Biases, so that a resumed run is the same one there.
    `config`: its config as plain values.
    """

    name: str
    config: Mapping[str, Any]
    tensorboard_folder: Path
    wandb_folder: Path
    run_id_file: Path


class Trackers:
    """The trackers that a config names; none of them in any process but the first."""

    def __init__(self, config: TrackersConfig, run: TrackedRun, step: int = 0) -> None:
        """`step`: that of the checkpoint the run goes on from; what was logged later is dropped.

        Raises:
            UserError: Weights & Biases does not start.
        """
        self._tensorboard: Any = None
        self._wandb: Any = None
        if not is_first_process():
            return
        if config.wandb_project:
            self._wandb = _wandb_run(config.wandb_project, run)
        if config.tensorboard:
            package = importlib.import_module("tensorboardX")
            # TensorBoard shows nothing of earlier files from `purge_step` on. Files are named by
            # the second they begin in: the suffix keeps the next one from taking the name.
            self._tensorboard = package.SummaryWriter(
                str(run.tensorboard_folder), purge_step=step + 1, filename_suffix=f".{step}"
            )

    def log(self, step: int, values: dict[str, Any]) -> None:
        """Reports the numbers in `values` after `step` steps; `{"a": {"b": 1}}` as `a/b`."""
        numbers = _flat(values)
        numbers.pop("step", None)
        if self._tensorboard is not None:
            for name, value in numbers.items():
                self._tensorboard.add_scalar(name, value, step)
            self._tensorboard.flush()
        if self._wandb is not None:
            self._wandb.log(numbers, step=step)

    def close(self) -> None:
        """Waits until all is written."""
        if self._tensorboard is not None:
            self._tensorboard.close()
        if self._wandb is not None:
            self._wandb.finish()


def _package(name: str, key: str, extra: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            f"{key}: the package {name} is not installed: pip install 'astra-jax[{extra}]'"
        ) from error


def _wandb_run(project: str, run: TrackedRun) -> Any:
    package = importlib.import_module("wandb")
    path = run.run_id_file
    run_id = path.read_text(encoding="utf-8").strip() if path.is_file() else ""
    if not run_id:
        run_id = uuid.uuid4().hex[:8]
        write_atomically(path, run_id + "\n")
    try:
        return package.init(
            project=project,
            id=run_id,
            resume="allow",
            name=run.name,
            config=dict(run.config),
            dir=str(run.wandb_folder),
        )
    except Exception as error:  # no account, no connection: each raises its own
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"config.logging.wandb_project: {reason}: run `wandb login`, or set WANDB_MODE=offline"
        ) from error


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, float]:
    """The numbers of nested mappings by path; everything else is left out."""
    numbers: dict[str, float] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            numbers |= _flat(value, f"{prefix}{key}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            numbers[f"{prefix}{key}"] = value
    return numbers
