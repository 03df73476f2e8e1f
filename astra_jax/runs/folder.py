"""What a run's folder holds, and what an evaluation's does: the one place that names their files.

WORKDIR/config.json           the resolved config
        normalization.json    what its sources are normalised by
        provenance.json       what ran when, on what, with which data
        checkpoints/latest/N  the state after N steps, to go on from
        checkpoints/best/N    the best parameters, to predict with
        metrics.jsonl         a line an epoch, and one every so many steps
        summary.json          written at the end
        log.txt               what was said, by the package and by libraries
        run.lock              while a process trains here
        matches/              simulated matches, where it has any
        tensorboard/          for TensorBoard, where it is asked for
        profile/              traces of some steps, where one is asked for
        wandb_run_id.txt      the run's id on Weights & Biases, where it is asked for
        seed_N/               a run of several seeds, beside seeds.json
OUT/metrics.json              an evaluation's scores, beside results/ and results.zip
    provenance.json           what predicted them
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from astra_jax.config.saved import from_json
from astra_jax.errors import UserError
from astra_jax.files import read_mapping
from astra_jax.formats.soccernet_results import ZIP_NAME

_CONFIG = "config.json"
_PROVENANCE = "provenance.json"
_METRICS = "metrics.json"


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run, or of a run of several seeds; `path` may begin with `~`."""

    path: Path

    def __post_init__(self) -> None:
        # os.path: a name that begins with ~ and is no user's stays what it is.
        object.__setattr__(self, "path", Path(os.path.expanduser(self.path)))

    def __str__(self) -> str:
        return str(self.path)

    @property
    def config_path(self) -> Path:
        """The resolved config, as JSON."""
        return self.path / _CONFIG

    @property
    def normalization_path(self) -> Path:
        """What the run's sources are normalised by."""
        return self.path / "normalization.json"

    @property
    def provenance_path(self) -> Path:
        """What ran when, on what, with which data."""
        return self.path / _PROVENANCE

    @property
    def checkpoints(self) -> Path:
        """The folder of both kinds of checkpoints."""
        return self.path / "checkpoints"

    @property
    def latest_checkpoints(self) -> Path:
        """Those to go on from, a folder each, named by their steps."""
        return self.checkpoints / "latest"

    @property
    def best_checkpoints(self) -> Path:
        """Those to predict with, a folder each, named by their steps."""
        return self.checkpoints / "best"

    @property
    def metrics_path(self) -> Path:
        """A line an epoch, and one every so many steps."""
        return self.path / "metrics.jsonl"

    @property
    def summary_path(self) -> Path:
        """How the run ended."""
        return self.path / "summary.json"

    @property
    def log_path(self) -> Path:
        """What the package said, and what libraries warned of, with date, time and level."""
        return self.path / "log.txt"

    @property
    def lock_path(self) -> Path:
        """Who trains here now."""
        return self.path / "run.lock"

    @property
    def matches(self) -> Path:
        """Where its simulated matches are written."""
        return self.path / "matches"

    @property
    def tensorboard(self) -> Path:
        """What TensorBoard reads."""
        return self.path / "tensorboard"

    @property
    def profile(self) -> Path:
        """Traces of some steps."""
        return self.path / "profile"

    @property
    def tracker_id_path(self) -> Path:
        """The run's id on Weights & Biases."""
        return self.path / "wandb_run_id.txt"

    @property
    def seeds_path(self) -> Path:
        """The scores of several seeds."""
        return self.path / "seeds.json"

    def seed(self, number: int) -> "RunFolder":
        """The run of one of several seeds."""
        return RunFolder(self.path / f"seed_{number}")

    def evaluations(self) -> Iterator["EvaluationFolder"]:
        """The evaluations directly in this folder that have scores, by name."""
        for path in sorted(self.path.glob(f"*/{_METRICS}")):
            yield EvaluationFolder(path.parent)

    def config(self) -> ConfigDict:
        """The config that the run keeps; UserError where it is missing or damaged."""
        return from_json(self.config_path)

    def summary(self) -> dict[str, Any] | None:
        """What the run wrote at its end; None before it, and where it is damaged."""
        return read_mapping(self.summary_path)

    def latest_step(self) -> int:
        """The step of the newest checkpoint to go on from, by its name; 0 where there is none."""
        names = (path.name for path in self.latest_checkpoints.glob("[0-9]*"))
        return max((int(name) for name in names if name.isdecimal()), default=0)

    def is_run(self) -> bool:
        """Whether this is the folder of a run that has begun, or ended."""
        parts = (self.metrics_path, self.summary_path, self.checkpoints)
        # A link to nowhere is there as well: whoever lists runs says so.
        has_config = os.path.lexists(self.config_path)
        return has_config and any(os.path.lexists(part) for part in parts)

    def is_imported(self) -> bool:
        """Whether the weights here were imported and not trained."""
        return "imported" in (read_mapping(self.provenance_path) or {})

    def holds_seeds(self) -> bool:
        """Whether runs of several seeds lie in here."""
        return any(self.path.glob(f"seed_*/{_CONFIG}"))

    def check_is_no_file(self) -> None:
        """Raises UserError where a file has this name."""
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"{self.path}: is a file: choose a folder for --workdir")


@dataclass(frozen=True)
class EvaluationFolder:
    """The folder of one evaluation; `path` may begin with `~`."""

    path: Path

    def __post_init__(self) -> None:
        # os.path: a name that begins with ~ and is no user's stays what it is.
        object.__setattr__(self, "path", Path(os.path.expanduser(self.path)))

    def __str__(self) -> str:
        return str(self.path)

    @property
    def metrics_path(self) -> Path:
        """The scores."""
        return self.path / _METRICS

    @property
    def provenance_path(self) -> Path:
        """Which runs predicted what, and when."""
        return self.path / _PROVENANCE

    @property
    def zip_path(self) -> Path:
        """The results, as SoccerNet's server takes them."""
        return self.path / ZIP_NAME
