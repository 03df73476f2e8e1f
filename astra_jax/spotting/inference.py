"""From a half to its spots: overlapping windows, by one model or by several together."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float

from astra_jax.data.halves import Half
from astra_jax.data.targets import ClipConfig
from astra_jax.data.time import clip_starts, exact_seconds, longest_stride
from astra_jax.devices import batch_sharding, replicated
from astra_jax.errors import UserError
from astra_jax.model import Predictions, SpottingModel
from astra_jax.spotting.suppression import Spots, SuppressionSpec, suppress
from astra_jax.spotting.windows import DenseScores, batch_windows, merge_windows, read_windows

Apply = Callable[[Any, dict[str, Any]], Predictions]
"""(parameters, inputs) to predictions, all on the devices."""


@dataclasses.dataclass(frozen=True)
class InferenceConfig:
    """How halves are cut into windows, and what becomes of the windows' predictions.

    `overlap`: what stays where windows overlap, the largest score ("max") or the "mean".
    `batch_size`: windows at a time.
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


def compile_apply(model: SpottingModel) -> Apply:
    """The jitted forward pass of a model."""
    return jax.jit(lambda params, inputs: model.apply({"params": params}, inputs, train=False))


class Forward:
    """A model with its parameters on the devices of this host."""

    def __init__(self, apply: Apply, params: Any, mesh: Mesh) -> None:
        """`params`: NumPy arrays."""
        self.devices: int = mesh.size
        self._apply = apply
        self._inputs, self._everywhere = batch_sharding(mesh), replicated(mesh)
        self.replace_params(params)

    def replace_params(self, params: Any) -> None:
        """Takes other parameters of the same model; nothing is compiled again."""
        self.params = jax.device_put(params, self._everywhere)

    def __call__(self, inputs: dict[str, Any]) -> Predictions:
        """What the model says of a batch of `read_windows`, as NumPy arrays."""
        return jax.device_get(self._apply(self.params, jax.device_put(inputs, self._inputs)))


class Predictor:
    """Predicts halves with one model, or with several as one: an ensemble (section 4.4).

    The models agree on classes and on the positions of a clip. Each reads a half by its own
    sources, so the half may last longer for one than for another: windows reach to the longest
    end, and past its own a model sees its last row and frame again, as in any clip that passes a
    half's end.
    """

    def __init__(
        self, config: InferenceConfig, members: Sequence[tuple[Forward, Sequence[Half]]]
    ) -> None:
        """Of each model its forward pass and the halves as it reads them.

        A half that members share (the same object) is read once.
        """
        self.config = config
        devices = members[0][0].devices
        self.batch_size = -(-config.batch_size // devices) * devices  # rounded up
        self._members = [
            (forward, {(half.match, half.half): half for half in halves})
            for forward, halves in members
        ]

    def spots(self, half: Half) -> Spots:
        """The spots of a half, given as any member reads it: dense scores, suppressed."""
        return find_spots(self.dense_scores(half), self.config.suppression)

    def dense_scores(self, half: Half) -> DenseScores:
        """Scores of every position of a half (section 3.6); windows are predicted in batches.

        Differs from the published implementation: the last window of a half is predicted too.
        """
        cfg = self.config
        members = [(forward, own[half.match, half.half]) for forward, own in self._members]
        halves = {id(half): half for _, half in members}
        seconds = max(half.seconds for half in halves.values())
        starts = clip_starts(
            seconds, cfg.stride_seconds, cfg.clip_seconds, cfg.positions_per_second
        )
        parts = []
        for batch in batch_windows(starts, self.batch_size):
            inputs = {
                key: read_windows(half, batch, cfg.clip_seconds) for key, half in halves.items()
            }
            parts.append(average_models([forward(inputs[id(half)]) for forward, half in members]))
        return merge_windows(
            parts, starts, seconds, cfg.positions_per_second, cfg.overlap, cfg.threshold
        )


def find_spots(dense: DenseScores, suppression: SuppressionSpec) -> Spots:
    """Suppresses dense scores; each spot gets the sigma of its position."""
    spots = suppress(dense.scores, suppression)
    if dense.sigma_seconds is None:
        return spots
    sigma = dense.sigma_seconds[spots.positions, spots.class_ids]
    return dataclasses.replace(spots, sigma_seconds=sigma)


def average_models(members: Sequence[Predictions]) -> Predictions:
    """At each position and class the mean of probabilities, of displacements and of variances.

    The paper averages "the predictions of all models"; ours are averaged before they are refined
    and placed. Variances are those of the members that have one; None where none has. Equal
    members give their own values, to the bit.
    """
    if len(members) == 1:
        return members[0]
    log_variances = [
        member.displacement_log_variance
        for member in members
        if member.displacement_log_variance is not None
    ]
    return Predictions(
        _mean([member.probabilities for member in members]),
        _mean([member.displacement_mean for member in members]),
        _log_mean_exp(log_variances) if log_variances else None,
    )


def _mean(
    arrays: Sequence[Float[Array | np.ndarray, "clip position class"]],
) -> Float[np.ndarray, "clip position class"]:
    # In double precision the sum of equal floats is exact, and so is their mean.
    return np.mean(np.stack(arrays), axis=0, dtype=np.float64).astype(arrays[0].dtype)


def _log_mean_exp(
    logs: Sequence[Float[Array | np.ndarray, "clip position class"]],
) -> Float[np.ndarray, "clip position class"]:
    """The logarithm of the mean of what these are logarithms of."""
    stacked = np.stack(logs).astype(np.float64)
    largest = stacked.max(axis=0)
    # Relative to the largest nothing overflows, and equal ones become exactly 1.
    mean = np.log(np.mean(np.exp(stacked - largest), axis=0))
    return (largest + mean).astype(logs[0].dtype)
