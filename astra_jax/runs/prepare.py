"""What a training is made of, put together before it begins: data, stream, what it starts from."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

from astra_jax.data.cache import MemoryCache, remove_left
from astra_jax.data.halves import Half
from astra_jax.data.index import index_halves, read_labels
from astra_jax.data.layout import check_roots
from astra_jax.data.normalization import (
    Normalizations,
    load_normalizations,
    measure_normalizations,
    normalize,
)
from astra_jax.data.pipeline import TrainingStream
from astra_jax.data.simulation.writer import write_matches
from astra_jax.data.splits import split_matches
from astra_jax.devices import is_first_process, wait_for_all
from astra_jax.errors import UserError
from astra_jax.model import SpottingModel
from astra_jax.runs.coverage import Labels, warn_of_uncovered
from astra_jax.runs.folder import RunFolder
from astra_jax.runs.init_from import read_warm_start
from astra_jax.runs.settings import Settings
from astra_jax.training.transfer import WarmStart


@dataclass(frozen=True)
class Validation:
    """The validation split: its halves, ready to be predicted, and its annotations."""

    halves: list[Half]
    labels: Labels


@dataclass(frozen=True)
class Prepared:
    """All that the steps of a training need beside its settings and its folder.

    `validation`: None where there is no split. `warm_start`: what changes the parameters before
    step 0, None where nothing does. `cache` is left when the halves aren't read any more.
    """

    halves: list[Half]
    normalizations: Normalizations
    stream: TrainingStream
    validation: Validation | None
    warm_start: WarmStart | None
    cache: AbstractContextManager[object]

    @property
    def data_halves(self) -> list[Half]:
        """Every half that the run reads."""
        return self.halves + (self.validation.halves if self.validation else [])


def prepare(settings: Settings, folder: RunFolder, model: SpottingModel) -> Prepared:
    """Indexes the data of a training and builds its stream.

    Simulated matches are written where the config asks for them; nothing else is. Sources are
    normalised as they were before in `folder`.

    Raises:
        UserError: anything wrong with files, or with the config in the light of them.
    """
    warm_start = read_warm_start(settings, folder, model)  # writes nothing
    write_simulation(settings)
    check_roots(settings.data, labelled=True)  # before the splits, whose lists may lie there
    halves = index_halves(settings.data, matches_of(settings, "train"))
    normalizations = normalizations_of(folder, halves)
    halves = normalize(halves, normalizations)
    validation = read_validation(settings, normalizations)
    remove_left()
    cache: AbstractContextManager[object] = nullcontext()
    if settings.in_memory:
        cache = kept = MemoryCache(halves + (validation.halves if validation else []))
        halves = kept.keep(halves)
        validation = validation and replace(validation, halves=kept.keep(validation.halves))
    stream = TrainingStream(halves, settings.stream)
    return Prepared(halves, normalizations, stream, validation, warm_start, cache)


def write_simulation(settings: Settings) -> None:
    """Writes the simulated matches of a demo run where the config asks for them."""
    if settings.simulation is None:
        return
    if is_first_process():
        write_matches(settings.simulation_root, settings.simulation)
    wait_for_all("simulated matches are written")


def matches_of(settings: Settings, split: str) -> tuple[str, ...]:
    """The matches of a split of the config, or of a file that lists them; raises UserError."""
    return split_matches(settings.splits, split, settings.data.labels_root)


def normalizations_of(folder: RunFolder, halves: Sequence[Half]) -> Normalizations:
    """Those of the run in `folder`; measured on the training `halves` where there are none."""
    path = folder.normalization_path
    if halves and not path.exists():
        return measure_normalizations(halves)
    return load_normalizations(path)


def read_validation(settings: Settings, normalizations: Normalizations) -> Validation | None:
    """The split that a training is validated on, its sources normalised; None where there is none.

    Raises:
        UserError: anything wrong with its files, or no labels.
    """
    if not settings.splits.get("valid"):
        return None
    matches = matches_of(settings, "valid")
    halves = normalize(index_halves(settings.data, matches), normalizations)
    labels = read_labels(settings.data, matches)
    if labels is None:
        raise UserError("config.data.splits.valid: its matches have no labels to validate with")
    warn_of_uncovered(labels, halves, settings.data)
    return Validation(halves, labels)
