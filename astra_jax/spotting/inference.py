"""From a half to its spots: overlapping windows, by one model or by several together."""

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import jax
from jax.sharding import Mesh

from astra_jax.data.halves import Half
from astra_jax.data.targets import ClipConfig
from astra_jax.data.time import Exact, clip_starts, exact_seconds, longest_stride
from astra_jax.devices import put_on_local
from astra_jax.errors import UserError
from astra_jax.model import Predictions
from astra_jax.spotting.ensemble import average_models
from astra_jax.spotting.pieces import Stream, streams_of
from astra_jax.spotting.programs import Programs, Store
from astra_jax.spotting.read_ahead import read_ahead
from astra_jax.spotting.schedule import Block, Reader, WindowBatch, WindowLayout, schedule
from astra_jax.spotting.suppression import Spots, SuppressionSpec, suppress
from astra_jax.spotting.windows import DenseScores, merge_windows

T = TypeVar("T")

_MOST_ON_CPU = 8
_AHEAD = 4  # blocks and batches of windows that are read before they are needed


@dataclasses.dataclass(frozen=True)
class InferenceConfig:
    """How halves are cut into windows, and what becomes of the windows' predictions.

    `overlap`: what stays where windows overlap, the largest score ("max") or the "mean".
    `batch_size`: windows at a time, at most (`windows_at_a_time`).
    """

    clip_seconds: float
    positions_per_second: float
    stride_seconds: float
    overlap: str
    batch_size: int
    threshold: float
    suppression: SuppressionSpec

    @classmethod
    def from_config(
        cls, inference: Mapping[str, Any], clip: ClipConfig, num_classes: int
    ) -> "InferenceConfig":
        """Reads the config's section `inference`.

        Raises:
            UserError: naming the key of a value that can't be used.
        """
        stride, overlap = inference["stride_seconds"], inference["overlap"]
        longest = longest_stride(clip.seconds, clip.positions_per_second)
        if exact_seconds(stride) > longest:
            raise UserError(
                f"config.inference.stride_seconds: {stride}, it must be at most "
                f"{int(longest * 10**6) / 10**6}, as long as the positions of a clip last "
                f"(clip.seconds: {clip.seconds}), or positions are left out"
            )
        if overlap not in ("max", "mean"):
            raise UserError(f"config.inference.overlap: {overlap!r}, it must be 'max' or 'mean'")
        suppression = SuppressionSpec.from_config(
            inference["suppression"], clip.positions_per_second, inference["threshold"]
        )
        suppression.half_windows(num_classes)  # raises where their number doesn't fit
        return cls(
            clip_seconds=clip.seconds,
            positions_per_second=clip.positions_per_second,
            stride_seconds=stride,
            overlap=overlap,
            batch_size=inference["batch_size"],
            threshold=inference["threshold"],
            suppression=suppression,
        )


def windows_at_a_time(config: InferenceConfig, mesh: Mesh) -> int:
    """`batch_size` of them, rounded up to as many for every device; on a CPU never many.

    Of more windows a CPU's caches hold less: 32 took 15 % longer each than 8, and the last batch of
    a half is filled up.
    """
    most = _MOST_ON_CPU if mesh.devices.flat[0].platform == "cpu" else config.batch_size
    return min(-(-config.batch_size // mesh.size), most) * mesh.size


class Forward:
    """A model with its parameters on the devices of this host."""

    def __init__(self, programs: Programs, params: Any) -> None:
        """`params`: NumPy arrays, or arrays that every device holds whole: they stay there."""
        self.programs = programs
        self.params = put_on_local(params, programs.mesh)
        self.streams = streams_of(programs.model.config)


class Predictor:
    """Predicts halves with one model, or with several as one: an ensemble (section 4.4).

    The models agree on classes and on the positions of a clip. Each reads a half by its own
    sources, so the half may last longer for one than for another: windows reach to the longest
    end, and past its own a model sees its last row and frame again, as in any clip that passes a
    half's end.

    Rows and audio segments are embedded once, however many windows hold them. Reading, computing
    and fetching overlap: within a half, and from one half to the next.
    """

    def __init__(
        self, config: InferenceConfig, members: Sequence[tuple[Forward, Sequence[Half]]]
    ) -> None:
        """Of each model its forward pass and the halves as it reads them.

        A half that members share (the same object) is read once.
        """
        self.config = config
        mesh = members[0][0].programs.mesh
        self.batch_size = windows_at_a_time(config, mesh)
        self._layout = WindowLayout(
            config.clip_seconds, config.stride_seconds, self.batch_size, mesh.size
        )
        self._members = [
            (forward, {(half.match, half.half): half for half in halves})
            for forward, halves in members
        ]
        self._stores: dict[tuple[int, int], Store] = {}

    def spots(self, half: Half) -> Spots:
        """The spots of a half, given as any member reads it: dense scores, suppressed."""
        (spots,) = self.all_spots([half])
        return spots

    def all_spots(
        self, halves: Sequence[Half], before_each: Callable[[], None] = lambda: None
    ) -> Iterator[Spots]:
        """The spots of one half after another; `before_each` is called before each is computed."""
        for dense in self.all_dense_scores(halves, before_each):
            yield find_spots(dense, self.config.suppression)

    def dense_scores(self, half: Half) -> DenseScores:
        """Scores of every position of a half (section 3.6).

        Differs from the published implementation: the last window of a half is predicted too.
        """
        (dense,) = self.all_dense_scores([half])
        return dense

    def all_dense_scores(
        self, halves: Sequence[Half], before_each: Callable[[], None] = lambda: None
    ) -> Iterator[DenseScores]:
        """`dense_scores` of one half after another."""
        plans = [self._plan(half) for half in halves]
        parts: list[Predictions] = []
        for batch, predicted in _one_late(self._predicted(plans, before_each)):
            fetched = average_models(jax.device_get(predicted))
            parts.append(jax.tree.map(lambda leaf, n=batch.count: leaf[:n], fetched))
            if batch.last:
                yield self._merge(plans[batch.half], parts)
                parts = []

    def _plan(self, half: Half) -> "_Plan":
        own = [halves[half.match, half.half] for _, halves in self._members]
        readers: dict[tuple[int, tuple[Stream, ...]], int] = {}
        reader_of = [
            readers.setdefault((id(of_member), forward.streams), len(readers))
            for of_member, (forward, _) in zip(own, self._members, strict=True)
        ]
        by_id = {id(of_member): of_member for of_member in own}
        cfg, seconds = self.config, max(of_member.seconds for of_member in own)
        starts = clip_starts(
            seconds, cfg.stride_seconds, cfg.clip_seconds, cfg.positions_per_second
        )
        return _Plan(seconds, starts, [(by_id[i], streams) for i, streams in readers], reader_of)

    def _predicted(
        self, plans: Sequence["_Plan"], before_each: Callable[[], None]
    ) -> Iterator[tuple[WindowBatch, list[Predictions]]]:
        """What each member says of each batch, on the devices, as soon as it was sent off."""
        work = itertools.chain.from_iterable(
            schedule(number, plan.readers, plan.starts, self._layout)
            for number, plan in enumerate(plans)
        )
        begun = -1
        with contextlib.closing(read_ahead(work, _AHEAD)) as items:
            for item in items:
                if item.half != begun:
                    before_each()
                    begun = item.half
                if isinstance(item, Block):
                    self._embed(plans[item.half], item)
                else:
                    yield item, self._predict(plans[item.half], item)

    def _embed(self, plan: "_Plan", block: Block) -> None:
        for number, (forward, _) in enumerate(self._members):
            if plan.reader_of[number] != block.reader:
                continue
            programs, key = forward.programs, (number, block.stream)
            if key not in self._stores:
                self._stores[key] = programs.empty_store(
                    forward.params, block.stream, block.pieces, block.present, block.size
                )
            self._stores[key] = programs.embed(
                forward.params,
                self._stores.pop(key),
                block.stream,
                block.pieces,
                block.present,
                block.place,
            )

    def _predict(self, plan: "_Plan", batch: WindowBatch) -> list[Predictions]:
        predictions = []
        for number, (forward, _) in enumerate(self._members):
            stores = tuple(self._stores[number, i] for i in range(len(forward.streams)))
            reader = plan.reader_of[number]
            predictions.append(
                forward.programs.predict(
                    forward.params, stores, batch.places[reader], batch.present[reader]
                )
            )
        return predictions

    def _merge(self, plan: "_Plan", parts: Sequence[Predictions]) -> DenseScores:
        cfg = self.config
        return merge_windows(
            parts, plan.starts, plan.seconds, cfg.positions_per_second, cfg.overlap, cfg.threshold
        )


@dataclasses.dataclass(frozen=True)
class _Plan:
    """A half's windows, the ways it is read, and which of them is each member's."""

    seconds: Exact
    starts: Sequence[Exact]
    readers: Sequence[Reader]
    reader_of: Sequence[int]


def _one_late(items: Iterator[T]) -> Iterator[T]:
    """The same items, each when the next one is there (the last one when there is none)."""
    waiting: list[T] = []
    for item in items:
        waiting.append(item)
        if len(waiting) > 1:
            yield waiting.pop(0)
    yield from waiting


def find_spots(dense: DenseScores, suppression: SuppressionSpec) -> Spots:
    """Suppresses dense scores; each spot gets the sigma of its position."""
    spots = suppress(dense.scores, suppression)
    if dense.sigma_seconds is None:
        return spots
    sigma = dense.sigma_seconds[spots.positions, spots.class_ids]
    return dataclasses.replace(spots, sigma_seconds=sigma)
