"""The runs that an evaluation predicts with, one or the members of an ensemble (section 4.4)."""

import contextlib
import re
import reprlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from astra_jax.config.load import override
from astra_jax.config.saved import flatten
from astra_jax.data.halves import Half
from astra_jax.data.index import index_halves
from astra_jax.data.layout import check_roots
from astra_jax.data.normalization import Normalizations, normalize
from astra_jax.data.sources import DataSpec
from astra_jax.devices import host_copy, make_mesh, replicated
from astra_jax.errors import UserError
from astra_jax.model import SpottingModel, abstract_params
from astra_jax.runs.components import Components
from astra_jax.runs.folder import RunFolder
from astra_jax.runs.prepare import matches_of, normalizations_of
from astra_jax.runs.settings import Settings, resolve
from astra_jax.training.checkpoints import Checkpoints

_SAME = ("data.classes", "clip.seconds", "clip.positions_per_second")
# What is predicted, how it becomes spots and how they are scored: one for all, but it can be set
# for all.
_SET_ALIKE = (
    *("data.periods", "evaluation.frame_rate"),
    *("inference.stride_seconds", "inference.overlap", "inference.threshold"),
)
_SET_ALIKE_GROUP = "inference.suppression."


@dataclass(frozen=True)
class Member:
    """A run of an evaluation, its config checked; nothing else of its folder is read yet."""

    folder: RunFolder
    settings: Settings
    model: SpottingModel

    def restore(self) -> tuple[int, Any]:
        """Step and parameters, as NumPy arrays, of the best checkpoint; raises UserError."""
        abstract = abstract_params(self.model, replicated(make_mesh()))
        latest, best = self.folder.latest_checkpoints, self.folder.best_checkpoints
        with contextlib.closing(Checkpoints(latest, best, read_only=True)) as checkpoints:
            step, params = checkpoints.restore_best(abstract)
        return step, host_copy(params)


def open_members(
    workdirs: Sequence[Path], overrides: Sequence[str], components: Components
) -> list[Member]:
    """The runs in these folders, checked each by itself and against the first.

    Raises:
        UserError: a config that can't be used, or two that don't go together: classes, the
            positions of a clip, the halves that count and what makes spots of predictions, and
            scores of spots, must be the same.
    """
    folders = [RunFolder(workdir) for workdir in workdirs]
    members = []
    for folder, config in zip(folders, _read_configs(folders, overrides), strict=True):
        with _name_in_errors(folder, folders):
            settings = Settings.from_config(resolve(config, folder))
            members.append(Member(folder, settings, components.make_model(settings.model)))
    for other in members[1:]:
        _check_agreement(members[0], other)
    return members


def _read_configs(folders: Sequence[RunFolder], overrides: Sequence[str]) -> list[ConfigDict]:
    """The configs of runs, overridden; raises UserError.

    An override of a key that only some of them have (`data.audio.mels`: one is without audio) is
    for those.
    """
    saved = [folder.config() for folder in folders]
    somewhere = [argument for argument in overrides if any(_has(c, argument) for c in saved)]
    configs = []
    for folder, config in zip(folders, saved, strict=True):
        own = [
            argument
            for argument in overrides
            if argument not in somewhere or _has(config, argument)
        ]
        with _name_in_errors(folder, folders):
            configs.append(override(config, own))
    return configs


def matches_of_all(members: Sequence[Member], split: str) -> tuple[str, ...]:
    """The matches of a split, which must be the same for all members; raises UserError."""
    folders = [member.folder for member in members]
    found = []
    for member in members:
        with _name_in_errors(member.folder, folders):
            check_roots(
                member.settings.data, labelled=False
            )  # before the split, whose list may lie there
            found.append(matches_of(member.settings, split))
    first, matches = members[0], found[0]
    for other, of_other in zip(members[1:], found[1:], strict=True):
        if differing := sorted(set(matches) ^ set(of_other)):
            where = first if differing[0] in matches else other
            raise UserError(
                f"{first.folder} and {other.folder}: data.splits.{split} names different matches "
                f"({differing[0]} only in {where.folder}): give a list of matches, --split FILE"
            )
    return matches


def index_members(members: Sequence[Member], matches: Sequence[str]) -> list[list[Half]]:
    """Each member's halves of the matches, not normalised; one list for all that read the same.

    Raises:
        UserError: anything wrong with the files, or a half that one member has files of and
            another one hasn't: the mean of fewer models is not the ensemble's.
    """
    folders = [member.folder for member in members]
    indexed: dict[DataSpec, list[Half]] = {}
    for member in members:
        with _name_in_errors(member.folder, folders):
            if member.settings.data not in indexed:
                indexed[member.settings.data] = index_halves(
                    member.settings.data, matches, labelled=False
                )
    found = [indexed[member.settings.data] for member in members]
    for other, of_other in zip(members[1:], found[1:], strict=True):
        _check_same_halves(members[0], found[0], other, of_other)
    return found


def normalize_members(
    members: Sequence[Member], halves: Sequence[Sequence[Half]]
) -> list[list[Half]]:
    """Each member's halves, normalised as in its training; one list for all that read the same.

    Raises:
        UserError: a `normalization.json` is absent, damaged or of other sources.
    """
    folders = [member.folder for member in members]
    found: dict[tuple[Any, ...], list[Half]] = {}
    keys = []
    for member, of_member in zip(members, halves, strict=True):
        with _name_in_errors(member.folder, folders):
            own = normalizations_of(member.folder, ())
            keys.append((member.settings.data, _content(own)))
            if keys[-1] not in found:
                found[keys[-1]] = normalize(of_member, own)
    return [found[key] for key in keys]


@contextlib.contextmanager
def _name_in_errors(folder: RunFolder, folders: Sequence[RunFolder]) -> Iterator[None]:
    """Where there are several folders, errors say which one they are of."""
    try:
        yield
    except UserError as error:
        if len(folders) == 1 or str(error).startswith(f"{folder}"):
            raise
        raise UserError(f"{folder}: {error}") from error


def _has(config: ConfigDict, argument: str) -> bool:
    """Whether there is the key of an override `--config.KEY=VALUE`."""
    value: Any = config
    for part in re.findall(r"[^.\[\]]+", argument.partition("=")[0])[1:]:
        try:
            value = value[int(part)] if isinstance(value, tuple) else value[part]
        except (KeyError, IndexError, TypeError, ValueError):
            return False
    return True


def _check_agreement(first: Member, other: Member) -> None:
    values, of_other = flatten(first.settings.config), flatten(other.settings.config)
    for key in values:
        alike = key in _SET_ALIKE or key.startswith(_SET_ALIKE_GROUP)
        if (key not in _SAME and not alike) or values[key] == of_other[key]:
            continue
        mend = f"set it for all: --config.{key}=VALUE" if alike else "leave one of the two out"
        raise UserError(
            f"{first.folder} and {other.folder}: {key} is {reprlib.repr(values[key])} in one and "
            f"{reprlib.repr(of_other[key])} in the other, the members of an ensemble must agree: "
            f"{mend}"
        )


def _check_same_halves(
    first: Member, of_first: Sequence[Half], other: Member, of_other: Sequence[Half]
) -> None:
    own = {(half.match, half.half) for half in of_first}
    others = {(half.match, half.half) for half in of_other}
    if not (differing := sorted(own ^ others)):
        return
    match, half = differing[0]
    there, absent = (first, other) if (match, half) in own else (other, first)
    raise UserError(
        f"{match}: half {half} has files for {there.folder} and none for {absent.folder} "
        f"({len(differing)} such half(s)); add them, give a list without the match (--split FILE), "
        "set data.periods for all, or leave one of the two out"
    )


def _content(normalizations: Normalizations) -> tuple[Any, ...]:
    """What tells two normalisations apart."""
    return tuple(
        None if item is None else (item.mean.tobytes(), float(item.scale))
        for item in normalizations
    )
