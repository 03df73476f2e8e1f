"""What a run reports beside its own files: to TensorBoard, to Weights & Biases."""

import importlib
import uuid
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
from ml_collections import ConfigDict

from astra_jax.config.saved import plain
from astra_jax.errors import UserError
from astra_jax.files import write_atomically

_RUN_ID_FILE = "wandb_run_id.txt"


def check_trackers(config: ConfigDict) -> None:
    """Raises UserError where `config.logging` asks for a package that is not installed."""
    if config.logging.tensorboard:
        _package("tensorboardX", "config.logging.tensorboard", extra="tensorboard")
    if config.logging.wandb_project:
        _package("wandb", "config.logging.wandb_project", extra="wandb")


class Trackers:
    """The trackers that `config.logging` names; none of them in any process but the first.

    TensorBoard's files lie in `WORKDIR/tensorboard`. A run on Weights & Biases has the name of
    the folder, the config and the id in `WORKDIR/wandb_run_id.txt`, so that a resumed one is the
    same run.
    """

    def __init__(self, config: ConfigDict, workdir: Path, step: int = 0) -> None:
        """`step`: that of the checkpoint the run goes on from; what was logged later is dropped.

        Raises:
            UserError: a package is not installed, or Weights & Biases does not start.
        """
        check_trackers(config)
        self._tensorboard: Any = None
        self._wandb: Any = None
        if jax.process_index() != 0:
            return
        if config.logging.wandb_project:
            self._wandb = _wandb_run(config, workdir)
        if config.logging.tensorboard:
            package = importlib.import_module("tensorboardX")
            # TensorBoard shows nothing of earlier files from `purge_step` on. Files are named by
            # the second they begin in: the suffix keeps the next one from taking the name.
            self._tensorboard = package.SummaryWriter(
                str(workdir / "tensorboard"), purge_step=step + 1, filename_suffix=f".{step}"
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


def _wandb_run(config: ConfigDict, workdir: Path) -> Any:
    package = importlib.import_module("wandb")
    path = workdir / _RUN_ID_FILE
    run_id = path.read_text(encoding="utf-8").strip() if path.is_file() else ""
    if not run_id:
        run_id = uuid.uuid4().hex[:8]
        write_atomically(path, run_id + "\n")
    try:
        return package.init(
            project=config.logging.wandb_project,
            id=run_id,
            resume="allow",
            name=workdir.absolute().name,
            config=plain(config),
            dir=str(workdir),
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
