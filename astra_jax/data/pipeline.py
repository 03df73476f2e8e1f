"""The training stream: plan, load, mix, batch, onto devices.

Batch k is a function of the seed and k alone: the same bytes for any number of workers, processes
or devices and after any resume. Features are read when they are needed, straight from the match
files.
"""

import contextlib
import functools
import itertools
import os
from collections.abc import Generator, Sequence
from typing import Any

import grain
import jax
from absl import flags

from astra_jax.data import workers
from astra_jax.data.halves import Half
from astra_jax.data.loader import Loader, StreamConfig
from astra_jax.data.mixup import ClipTable, EpochPlan
from astra_jax.errors import UserError

# Batches are large (34 MB at full size and batch 8): a few are read ahead, not grain's 500.
READ_OPTIONS = grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)
WORKER_READ_OPTIONS = grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)
BATCHES_AHEAD_PER_WORKER = 2


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
        local_batch = config.batch_size // count
        self._loader = Loader(halves, config, index * local_batch, local_batch)
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
        """A batch of one clip with any values: what batches are made of."""
        return self._loader.example()

    def batches(self, start_step: int, total_steps: int) -> Generator[dict[str, Any], None, None]:
        """Batches start_step, ..., total_steps - 1 (this process's slice of each), as NumPy arrays.

        Close the iterator, or exhaust it, to end its threads or worker processes.
        """
        batches = grain.MapDataset.range(start_step, total_steps).map(self._loader)
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


def _check(config: StreamConfig, halves: Sequence[Half], processes: int) -> None:
    if not halves:
        raise UserError("data.splits.train: no half to train on; list at least one match")
    batch_size = config.batch_size
    if batch_size % processes:
        raise UserError(
            f"training.batch_size: {batch_size}, it must be a multiple of the {processes} "
            "process(es)"
        )
