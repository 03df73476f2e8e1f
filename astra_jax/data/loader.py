"""One batch by its number: its planned clips, read and mixed."""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from grain.multiprocessing import SharedMemoryArray

from astra_jax.data.clips import classes_in_clips, empty_clip, read_clip_into
from astra_jax.data.halves import Half, in_half_precision
from astra_jax.data.mixing import mix
from astra_jax.data.mixup import ClipTable, EpochPlan, MixupConfig, pair_clips, plan
from astra_jax.data.targets import ClipConfig, TargetSpec
from astra_jax.data.time import clip_starts, exact_seconds
from astra_jax.errors import UserError

_STARTS = 3  # of the random streams of a seed and epoch; the plan has the first three


@dataclass(frozen=True)
class StreamConfig:
    """What decides the training stream beside the halves: see `from_config`.

    `batch_size` is global: every process loads its slice of it.
    """

    seed: int
    batch_size: int
    workers: int
    clip: ClipConfig
    targets: TargetSpec
    mixup: MixupConfig

    @classmethod
    def from_config(
        cls,
        data: Mapping[str, Any],
        seed: int,
        batch_size: int,
        clip: ClipConfig,
        targets: TargetSpec,
        mixup: MixupConfig,
    ) -> "StreamConfig":
        """Reads the loading processes off the config's section `data`."""
        return cls(seed, batch_size, data["workers"], clip, targets, mixup)


class Loader:
    """Loads a process's slice of a batch by its number; travels to loading processes.

    Its rows of the batch begin with `offset` and are `local_batch`.
    """

    def __init__(
        self, halves: Sequence[Half], config: StreamConfig, offset: int, local_batch: int
    ) -> None:
        self._halves = tuple(halves)
        self._spec, self._mixup = config.targets, config.mixup
        self._clip_config = config.clip
        self._stride = exact_seconds(config.clip.stride_seconds)
        self._random_starts = config.clip.random_starts
        rates = [source.rows_per_second for source in halves[0].spec.sources]
        self._grid = 1 / min([Fraction(1), *rates])
        self._shifts = math.ceil(self._stride / self._grid)
        if self._random_starts and self._shifts < 2:
            raise UserError(
                f"clip.random_starts: clips start every {float(self._stride):g} s "
                f"(clip.stride_seconds) and would move by {float(self._grid):g} s: raise the "
                "stride, or set it to False"
            )
        self._seed, self._batch_size = config.seed, config.batch_size
        pairs = len(self.clips(0).pairs)
        self.steps_per_epoch = pairs // self._batch_size
        if self.steps_per_epoch == 0:
            raise UserError(
                f"training.batch_size: {self._batch_size}, but an epoch has only "
                f"{pairs} clips; lower it or train on more matches"
            )
        self._rows = slice(offset, offset + local_batch)
        self._half_precision = in_half_precision(self._halves)
        # What a loading process fills is handed over without a copy.
        self._allocate = SharedMemoryArray if config.workers else np.empty

    def plan(self, epoch: int) -> EpochPlan:
        """The plan of an epoch."""
        mixup, clips = self._mixup, self.clips(epoch)
        return _cached_plan(
            self._seed, epoch, self._batch_size, clips, mixup.kind, mixup.alpha, mixup.beta
        )

    def clips(self, epoch: int) -> ClipTable:
        """The clips that an epoch chooses from."""
        return self._placed(epoch)[0]

    def _placed(self, epoch: int) -> tuple[ClipTable, list[tuple[int, Fraction]]]:
        return _cached_clips(self, epoch if self._random_starts else 0)

    def place_clips(self, epoch: int) -> tuple[ClipTable, list[tuple[int, Fraction]]]:
        """The clips of an epoch, and the half and start of each.

        Random starts move the clips of a half to earlier, onto whole seconds or, where it has
        slower sources, whole rows of the slowest one; the first clip stays at 0.
        """
        clip = self._clip_config
        starts = [
            clip_starts(half.seconds, self._stride, clip.seconds, clip.positions_per_second)
            for half in self._halves
        ]
        if self._random_starts:
            rng = np.random.default_rng(np.random.SeedSequence([self._seed, epoch, _STARTS]))
            shifts = rng.integers(self._shifts, size=len(starts)).tolist()
            starts = [
                [max(Fraction(0), (start // self._grid - shift) * self._grid) for start in of_half]
                for of_half, shift in zip(starts, shifts, strict=True)
            ]
        counts = np.array([len(of_half) for of_half in starts])
        where = [(index, start) for index, of_half in enumerate(starts) for start in of_half]
        if self._mixup.kind != "balanced":  # nothing else asks which classes a clip holds
            return ClipTable(pair_clips(counts), np.zeros((len(where), 0), bool)), where
        return ClipTable(
            pair_clips(counts), classes_in_clips(self._halves, starts, self._spec)
        ), where

    def __call__(self, step: int) -> dict[str, Any]:
        """The slice of batch `step`: a batch of clips (see `clips`), for `finish_mixing`."""
        epoch, step = divmod(int(step), self.steps_per_epoch)
        entry, where = self.plan(epoch), self._placed(epoch)[1]
        own = entry.own[step, self._rows].tolist()
        batch = self._empty((len(own),), self._allocate)
        if self._mixup.kind == "none":
            for row, clip in enumerate(own):
                self._read(where[clip], _row(batch, row))
            return batch
        lam = float(entry.lam[step])
        one = self._empty((), np.empty)
        partners = self._partners(batch, self._allocate)
        for row, pair in enumerate(zip(own, entry.partner[step, self._rows].tolist(), strict=True)):
            clip, partner = _row(batch, row), _partner(one, partners, row)
            self._read(where[pair[0]], clip)
            self._read(where[pair[1]], partner)
            mix(clip, partner, lam)
        return self._with_partners(batch, partners, lam)

    def example(self) -> dict[str, Any]:
        """A batch of one clip with any values: the keys, types and shapes of all batches."""
        batch = self._empty((1,), np.empty)
        if self._mixup.kind == "none":
            return batch
        return self._with_partners(batch, self._partners(batch, np.empty), 1.0)

    def describe(self, step: int) -> list[str]:
        """The clips of batch `step` in words, each once."""
        epoch, step = divmod(step, self.steps_per_epoch)
        entry, where = self.plan(epoch), self._placed(epoch)[1]
        clips = dict.fromkeys([*entry.own[step].tolist(), *entry.partner[step].tolist()])
        named = ((self._halves[where[clip][0]], where[clip][1]) for clip in clips)
        return [f"{half.match} half {half.half} at {float(start):g} s" for half, start in named]

    def _empty(self, clips: tuple[int, ...], allocate: Any) -> dict[str, Any]:
        spec = self._halves[0].spec
        return empty_clip(spec, self._spec, self._half_precision, clips, allocate)

    def _with_partners(
        self, batch: dict[str, Any], partners: dict[str, Any], lam: float
    ) -> dict[str, Any]:
        """The batch with what `finish_mixing` needs, where any features are mixed on the device."""
        if not any(self._half_precision):
            return batch
        clips = len(batch["class_targets"])
        return {**batch, "partner": partners, "lam": np.full(clips, lam, np.float32)}

    def _partners(self, batch: dict[str, Any], allocate: Any) -> dict[str, Any]:
        """Arrays for the partners' features that are mixed on the device, None for the others."""
        halved = [
            rows if half else None
            for rows, half in zip(batch["features"], self._half_precision, strict=True)
        ]
        return {
            "features": tuple(
                rows if rows is None else allocate(rows.shape, rows.dtype) for rows in halved
            ),
            "masks": tuple(
                rows if rows is None else np.empty(rows.shape[:2], bool) for rows in halved
            ),
        }

    def _read(self, where: tuple[int, Fraction], clip: dict[str, Any]) -> None:
        read_clip_into(self._halves[where[0]], where[1], self._spec, clip)


def _row(tree: Any, row: int) -> Any:
    """Views of one row of all arrays, plain ones where the arrays are shared memory's."""
    if isinstance(tree, dict):
        return {key: _row(item, row) for key, item in tree.items()}
    if isinstance(tree, tuple):
        return tuple(_row(item, row) for item in tree)
    return np.asarray(tree)[row]


def _partner(one: dict[str, Any], partners: dict[str, Any], row: int) -> dict[str, Any]:
    """Where a partner is read to: what travels with the batch into its row, the rest into `one`."""

    def choose(alone: Any, of_batch: Any) -> tuple[Any, ...]:
        return tuple(
            array if rows is None else np.asarray(rows)[row]
            for array, rows in zip(alone, of_batch, strict=True)
        )

    features = choose(one["features"], partners["features"])
    masks = {**one["masks"], "features": choose(one["masks"]["features"], partners["masks"])}
    return {**one, "features": features, "masks": masks}


# Prefetching crosses from one epoch into the next: two plans are alive at once.
_cached_clips = functools.lru_cache(maxsize=4)(Loader.place_clips)
_cached_plan = functools.lru_cache(maxsize=4)(plan)
