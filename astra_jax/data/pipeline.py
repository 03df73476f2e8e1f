"""The training stream: plan, load, mix, batch, onto devices.

Batch k is a function of the seed and k alone: the same bytes for any number of workers, processes
or devices and after any resume. Features are read when they are needed, straight from the match
files.
"""

import contextlib
import functools
import itertools
import math
import os
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import grain
import jax
import numpy as np
from absl import flags

from astra_jax.data import workers
from astra_jax.data.clips import classes_in_clips, read_clip
from astra_jax.data.halves import Half
from astra_jax.data.mixup import ClipTable, EpochPlan, MixupConfig, mix, pair_clips, plan
from astra_jax.data.targets import ClipConfig, TargetSpec
from astra_jax.data.time import clip_starts, exact_seconds
from astra_jax.errors import UserError

# Batches are large (34 MB at full size and batch 8): a few are read ahead, not grain's 500.
READ_OPTIONS = grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)
WORKER_READ_OPTIONS = grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)
BATCHES_AHEAD_PER_WORKER = 2
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


class TrainingStream:
    """Batches of mixed training clips from the halves of a split, by number.

    Errors: UserError naming the config key, at once, or the file, when a batch is loaded.
    """

    def __init__(
        self,
        halves: Sequence[Half],
        config: StreamConfig,
        process_index: int | None = None,
        process_count: int | None = None,
    ) -> None:
        """`process_index` and `process_count` are jax's where they are not given."""
        index = jax.process_index() if process_index is None else process_index
        count = jax.process_count() if process_count is None else process_count
        _check(config, halves, count)
        self.batch_size: int = config.batch_size
        self._workers = config.workers
        self._local_batch = config.batch_size // count
        self._loader = _Loader(halves, config, index * self._local_batch, self._local_batch)
        self.steps_per_epoch: int = self._loader.steps_per_epoch

    def clips(self, epoch: int) -> ClipTable:
        """The clips that an epoch, counted from 0, chooses from."""
        return self._loader.clips(epoch)

    def plan(self, epoch: int) -> EpochPlan:
        """The plan of an epoch, counted from 0; the same in every process."""
        return self._loader.plan(epoch)

    def describe(self, step: int) -> list[str]:
        """The clips of batch `step` (from 0) in words, each once: match, half and start."""
        return self._loader.describe(step)

    def example(self) -> dict[str, Any]:
        """A batch of the first clip alone, read in this thread: what batches are made of."""
        example: dict[str, Any] = self._samples(0, 1).batch(1)[0]
        return example

    def _samples(self, start: int, stop: int) -> grain.MapDataset[Any]:
        """Mixed clips by number, each loaded when it is asked for."""
        return grain.MapDataset.range(start, stop).map(self._loader)

    def batches(self, start_step: int, total_steps: int) -> Generator[dict[str, Any], None, None]:
        """Batches start_step, ..., total_steps - 1 (this process's slice of each), as NumPy arrays.

        Close the iterator, or exhaust it, to end its threads or worker processes.
        """
        samples = self._samples(start_step * self._local_batch, total_steps * self._local_batch)
        batches = samples.batch(self._local_batch)
        if self._workers == 0:
            dataset = batches.to_iter_dataset(READ_OPTIONS)
        else:
            workers.start_tracker()
            if not flags.FLAGS.is_parsed():
                flags.FLAGS.mark_as_parsed()  # grain's workers read absl flags
            options = grain.MultiprocessingOptions(
                num_workers=min(self._workers, max(1, total_steps - start_step)),
                per_worker_buffer_size=BATCHES_AHEAD_PER_WORKER,
            )
            dataset = batches.to_iter_dataset(WORKER_READ_OPTIONS).mp_prefetch(
                options, worker_init_fn=functools.partial(workers.prepare, os.getpid())
            )
        iterator = iter(dataset)
        try:
            # Grain starts its processes when it is asked for the first batch.
            with workers.starting() if self._workers else contextlib.nullcontext():
                first = list(itertools.islice(iterator, 1))
            while first:
                yield first.pop()  # and keep no reference to it
            yield from iterator
        except RuntimeError as error:
            if "terminated unexpectedly" not in str(error):  # grain's words
                raise
            raise UserError(
                "data.workers: a worker process died (killed, or out of memory or of shared "
                "memory in /dev/shm); set data.workers=0 to load in threads"
            ) from error
        finally:
            iterator.close()


class _Loader:
    """Loads one mixed clip by its number; travels to worker processes."""

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
        self._offset, self._local_batch = offset, local_batch

    def plan(self, epoch: int) -> EpochPlan:
        mixup, clips = self._mixup, self.clips(epoch)
        return _cached_plan(
            self._seed, epoch, self._batch_size, clips, mixup.kind, mixup.alpha, mixup.beta
        )

    def clips(self, epoch: int) -> ClipTable:
        return _cached_clips(self, epoch if self._random_starts else 0)[0]

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

    def __call__(self, sample: int) -> dict[str, Any]:
        step, row = divmod(int(sample), self._local_batch)
        epoch, step = divmod(step, self.steps_per_epoch)
        entry = self.plan(epoch)
        row += self._offset
        own = self._clip(epoch, int(entry.own[step, row]))
        if self._mixup.kind == "none":
            return own
        return mix(own, self._clip(epoch, int(entry.partner[step, row])), float(entry.lam[step]))

    def describe(self, step: int) -> list[str]:
        epoch, step = divmod(step, self.steps_per_epoch)
        entry = self.plan(epoch)
        where = _cached_clips(self, epoch if self._random_starts else 0)[1]
        clips = dict.fromkeys([*entry.own[step].tolist(), *entry.partner[step].tolist()])
        named = ((self._halves[where[clip][0]], where[clip][1]) for clip in clips)
        return [f"{half.match} half {half.half} at {float(start):g} s" for half, start in named]

    def _clip(self, epoch: int, clip: int) -> dict[str, Any]:
        half, start = _cached_clips(self, epoch if self._random_starts else 0)[1][clip]
        return read_clip(self._halves[half], start, self._spec)


# Prefetching crosses from one epoch into the next: two plans are alive at once.
_cached_clips = functools.lru_cache(maxsize=4)(_Loader.place_clips)
_cached_plan = functools.lru_cache(maxsize=4)(plan)


def _check(config: StreamConfig, halves: Sequence[Half], processes: int) -> None:
    if not halves:
        raise UserError("data.splits.train: no half to train on; list at least one match")
    batch_size = config.batch_size
    if batch_size % processes:
        raise UserError(
            f"training.batch_size: {batch_size}, it must be a multiple of the {processes} "
            "process(es)"
        )
