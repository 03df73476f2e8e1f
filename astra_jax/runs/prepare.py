"""What a run is made of, put together before it begins: checks, data, model, stream."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from astra_jax.config.check import check
from astra_jax.data import normalization
from astra_jax.data.normalization import Normalizations
from astra_jax.data.normalization import normalized
from astra_jax.data.pipeline import TrainingStream
from astra_jax.data.simulation.writer import SimulationSpec
from astra_jax.data.simulation.writer import write_matches
from astra_jax.data.sources import DataSpec
from astra_jax.data.halves import Half
from astra_jax.data.layout import check_roots
from astra_jax.data.index import index_halves
from astra_jax.data.splits import load_split
from astra_jax.formats.soccernet_labels import read_raw_annotations
from astra_jax.errors import UserError
from astra_jax.model import ModelConfig
from astra_jax.spotting.inference import suppression_of
from astra_jax.runs.init_from import warm_start_of
from astra_jax.training.loop import check_training
from astra_jax.training.optimizer import learning_rate_schedule
from astra_jax.training.trackers import check_trackers
from astra_jax.training.transfer import WarmStart

Labels = dict[str, list[dict[str, Any]]]


@dataclass(frozen=True)
class Validation:
    """The validation split: its halves, ready to be predicted, and its annotations."""

    halves: list[Half]
    labels: Labels


@dataclass(frozen=True)
class Prepared:
    """All that a training needs but its folder.

    `validation`: None where there is no split. `warm_start`: what changes the parameters before
    step 0, None where nothing does.
    """

    config: ConfigDict
    spec: DataSpec
    model_config: ModelConfig
    halves: list[Half]
    normalizations: Normalizations
    stream: TrainingStream
    validation: Validation | None
    warm_start: WarmStart | None

    @property
    def data_halves(self) -> list[Half]:
        """Every half that the run reads."""
        return self.halves + (self.validation.halves if self.validation else [])


def check_config(config: ConfigDict) -> None:
    """Finds out all that can be wrong with a training's config, reading no file.

    Raises:
        UserError: naming the key.
    """
    check(config)
    check_training(config, jax.device_count())
    suppression_of(config)
    learning_rate_schedule(config, steps_per_epoch=1)
    check_trackers(config)


def prepare(config: ConfigDict, workdir: Path) -> Prepared:
    """Indexes the data of a checked config and builds its model and stream.

    Simulated matches are written where the config asks for them, below `workdir` where it has no
    `data.root`; nothing else is. Sources are normalised as they were before in `workdir`.

    Raises:
        UserError: anything wrong with files, or with the config in the light of them.
    """
    warm_start = warm_start_of(config, model_of(config), workdir)  # writes nothing
    spec, model_config = begin(config, workdir)
    check_roots(spec, labelled=True)  # before the splits, whose lists may lie there
    halves = index_halves(spec, matches_of(config, "train"))
    normalizations = normalizations_of(workdir, halves)
    halves = normalized(halves, normalizations)
    stream = TrainingStream(halves, config)
    validation = _validation(config, spec, normalizations)
    return Prepared(
        config, spec, model_config, halves, normalizations, stream, validation, warm_start
    )


def begin(config: ConfigDict, workdir: Path) -> tuple[DataSpec, ModelConfig]:
    """What a checked config says of its data and its model, and its simulated matches in place.

    They are written where the config asks for them, below `workdir` where it has no `data.root`,
    which is then set.
    """
    if config.simulation is not None and config.data.root is None:
        config.data.root = str((workdir / "matches").absolute())
    spec, model_config = DataSpec.from_config(config.data), model_of(config)
    _prepare_simulation(config)
    return spec, model_config


def model_of(config: ConfigDict) -> ModelConfig:
    """The model of a run; computes in bfloat16 on GPU and TPU unless the config says otherwise."""
    on_cpu = jax.default_backend() == "cpu"
    return ModelConfig.from_config(config, default_dtype="float32" if on_cpu else "bfloat16")


def matches_of(config: ConfigDict, split: str) -> tuple[str, ...]:
    """The matches of a split of the config, or of a text file of them; raises UserError."""
    # As a dict: a ConfigDict would take the dot of a file's name for a path of keys.
    splits = config.data.splits.to_dict()
    # Of train+valid each part is one of the config's as well.
    parts = [split] if split in splits else split.split("+")
    name = "+".join(splits.get(part, part) or "" for part in parts)
    if not name:
        raise UserError(f"data.splits.{split}: names no list of matches; set it")
    known = f"data.splits, or name one of its splits ({', '.join(splits)})"
    return load_split(name, config.data.labels_root or config.data.root, known)


def labels_of(spec: DataSpec, matches: Sequence[str]) -> Labels | None:
    """The annotations that the metric reads; None where no match has any."""
    paths = {match: spec.labels_root / match / spec.labels_file for match in matches}
    if not any(path.is_file() for path in paths.values()):
        return None
    return {match: read_raw_annotations(path) for match, path in paths.items()}


def normalizations_of(workdir: Path, halves: Sequence[Half]) -> Normalizations:
    """Those of the run in `workdir`; measured on the training `halves` where there are none."""
    path = workdir.expanduser() / normalization.FILE_NAME
    if halves and not path.exists():
        return normalization.measure(halves)
    return normalization.load(path)


def _validation(
    config: ConfigDict, spec: DataSpec, normalizations: Normalizations
) -> Validation | None:
    if not config.data.splits.get("valid"):
        return None
    matches = matches_of(config, "valid")
    halves = normalized(index_halves(spec, matches), normalizations)
    labels = labels_of(spec, matches)
    if labels is None:
        raise UserError("config.data.splits.valid: its matches have no labels to validate with")
    return Validation(halves, labels)


def _prepare_simulation(config: ConfigDict) -> None:
    """Writes the simulated matches of a demo run where the config asks for them."""
    if config.simulation is None:
        return
    if jax.process_index() == 0:
        write_matches(Path(config.data.root), SimulationSpec.from_config(config.simulation))
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("simulated matches are written")
