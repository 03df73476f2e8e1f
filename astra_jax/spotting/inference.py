"""From a half to dense scores: overlapping windows, each spot landed where it is refined to."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int
from ml_collections import ConfigDict

from astra_jax.data.clips import read_inputs
from astra_jax.data.halves import Half
from astra_jax.data.targets import refine, window_starts
from astra_jax.devices import batch_sharding, make_mesh, replicated
from astra_jax.errors import UserError
from astra_jax.model import Predictions
from astra_jax.spotting.suppression import Spots, SuppressionSpec, suppress


@dataclasses.dataclass(frozen=True)
class DenseScores:
    """A half's scores at every output position, action classes only.

    `sigma_seconds` is the standard deviation of the time at the window and position that gave
    the score, NaN where there is no score; None for a model without uncertainty.
    """

    scores: Float[np.ndarray, "position class"]
    sigma_seconds: Float[np.ndarray, "position class"] | None


class Predictor:
    """Predicts halves with one model (`ASTRA`, or one called alike) on the devices of this host."""

    def __init__(self, config: ConfigDict, model: nn.Module, params: Any) -> None:
        self._suppression = suppression_of(config)
        self.config = config
        mesh = make_mesh(jax.local_devices())
        devices = len(jax.local_devices())
        self.batch_size = -(-config.inference.batch_size // devices) * devices
        self._inputs, self._everywhere = batch_sharding(mesh), replicated(mesh)
        self.params = jax.device_put(params, self._everywhere)
        self._apply = jax.jit(lambda p, inputs: model.apply({"params": p}, inputs, train=False))

    def replace_params(self, params: Any) -> None:
        """Goes on with other parameters of the same model; nothing is compiled again."""
        self.params = jax.device_put(params, self._everywhere)

    def spots(self, half: Half) -> Spots:
        """The spots of one half: dense scores, suppressed."""
        return spots_of(self.dense_scores(half), self._suppression)

    def dense_scores(self, half: Half) -> DenseScores:
        """Scores of every position of a half (section 3.6); windows are predicted in batches.

        Differs from the published implementation: the last window of a half is predicted too.
        """
        starts = window_starts(half.seconds, self.config.inference.stride_seconds)
        parts = [
            self.predict(read_windows(half, batch, self.config.clip.seconds))
            for batch in batches(starts, self.batch_size)
        ]
        return land_windows(parts, starts, half.seconds, self.config)

    def predict(self, inputs: dict[str, Any]) -> Predictions:
        """What the model says of a batch of `read_windows`, as NumPy arrays."""
        return jax.device_get(self._apply(self.params, jax.device_put(inputs, self._inputs)))


def batches(starts: Sequence[float], size: int) -> Iterator[list[float]]:
    """Windows, `size` at a time."""
    for first in range(0, len(starts), size):
        chosen = list(starts[first : first + size])
        # A short batch is filled up with its last window, so one program serves all.
        yield chosen + chosen[-1:] * (size - len(chosen))


def land_windows(
    parts: Sequence[Predictions], starts: Sequence[float], seconds: float, config: ConfigDict
) -> DenseScores:
    """The dense scores of a half of so many seconds, put together as `config.inference` says.

    `parts`: the predictions of `batches(starts, size)`, NumPy arrays.
    """
    rate = config.clip.positions_per_second
    predictions = jax.tree.map(lambda *leaves: np.concatenate(leaves)[: len(starts)], *parts)
    first_positions = np.round(np.asarray(starts) * rate).astype(np.int64)
    positions = max(1, round(seconds * rate))
    if config.inference.overlap == "mean":
        predictions = averaged(predictions, first_positions, positions)
        first_positions = np.zeros(1, np.int64)
    return land(
        predictions,
        first_positions,
        positions=positions,
        positions_per_second=rate,
        threshold=config.inference.threshold,
    )


def spots_of(dense: DenseScores, suppression: SuppressionSpec) -> Spots:
    """What stays of dense scores, with the sigma of its place."""
    spots = suppress(dense.scores, suppression)
    if dense.sigma_seconds is None:
        return spots
    sigma = dense.sigma_seconds[spots.positions, spots.classes]
    return dataclasses.replace(spots, sigma_seconds=sigma)


def suppression_of(config: ConfigDict) -> SuppressionSpec:
    """How the spots of a run are suppressed; UserError where `config.inference` can't be used."""
    cfg = config.inference
    if cfg.stride_seconds > config.clip.seconds:
        raise UserError(
            f"config.inference.stride_seconds: {cfg.stride_seconds}, it must be at most "
            f"clip.seconds ({config.clip.seconds}), or positions are left out"
        )
    if cfg.overlap not in ("max", "mean"):
        raise UserError(f"config.inference.overlap: {cfg.overlap!r}, it must be 'max' or 'mean'")
    spec = SuppressionSpec.from_config(
        cfg.suppression, config.clip.positions_per_second, cfg.threshold
    )
    spec.half_windows(len(config.data.classes))
    return spec


def read_windows(half: Half, starts: Sequence[float], clip_seconds: float) -> dict[str, Any]:
    """The model's inputs for windows of a half that start at `starts` seconds."""
    # A batch that was filled up holds its last window many times.
    read = {start: read_inputs(half, start, clip_seconds) for start in set(starts)}
    return jax.tree.map(lambda *leaves: np.stack(leaves), *(read[start] for start in starts))


def averaged(
    predictions: Predictions, starts: Int[np.ndarray, " window"], positions: int
) -> Predictions:
    """One window as long as the half: at each position the mean over the windows that hold it.

    A window counts most in its middle and a twentieth of that at its ends, where it sees one
    side only. Means, probabilities and variances of displacements are averaged. What several
    windows agree on stays, what one of them thought is weakened: on weak features the largest
    score of many windows is mostly noise.

    Args:
        predictions: one window a row, NumPy arrays.
        starts: first position of each window in the half.
        positions: of the half; windows must cover them all.
    """
    length = predictions.probabilities.shape[1]
    weights = np.maximum(1 - np.abs((np.arange(length) + 0.5) / length * 2 - 1), 0.05)
    total = np.zeros((positions, 1))
    for start in starts:
        total[start : start + length, 0] += weights[: positions - start]

    def mean(
        windows: Float[Array | np.ndarray, "window step class"],
    ) -> Float[np.ndarray, "1 position class"]:
        summed = np.zeros((positions, windows.shape[-1]))
        for start, values in zip(starts, windows, strict=True):
            count = len(summed[start : start + length])
            summed[start : start + length] += weights[:count, None] * values[:count]
        return (summed / total)[None]

    log_variance = predictions.displacement_log_variance
    return Predictions(
        mean(predictions.probabilities),
        mean(predictions.displacement_mean),
        None if log_variance is None else np.log(mean(np.exp(np.asarray(log_variance)))),
    )


def land(
    predictions: Predictions,
    starts: Int[np.ndarray, " window"],
    positions: int,
    positions_per_second: float,
    threshold: float = 0.01,
) -> DenseScores:
    """Lands the windows' predictions on the positions of a half.

    Every position t and action with a probability above `threshold` lands at
    `round(start + t - mu)`, half to even, clamped into the half; the largest probability wins
    (on a tie the earliest window and position).

    Args:
        predictions: one window a row, NumPy arrays.
        starts: first position of each window in the half.
        positions: of the half.
    """
    probabilities = np.asarray(predictions.probabilities)[..., 1:]
    window, step, action = np.nonzero(probabilities > threshold)
    kept = (window, step, action)
    score = probabilities[kept].astype(np.float64)
    mean = np.asarray(predictions.displacement_mean)[..., 1:][kept].astype(np.float64)
    landed = np.rint(refine(starts[window] + step, mean)).astype(np.int64)
    landed = np.clip(landed, 0, positions - 1)
    # Rising scores, and of equal ones the earliest last: the last assignment stays.
    order = np.lexsort((-np.arange(len(score)), score))
    place = (landed[order], action[order])
    dense = np.zeros((positions, probabilities.shape[-1]))
    dense[place] = score[order]
    if predictions.displacement_log_variance is None:
        return DenseScores(dense, None)
    log_variance = np.asarray(predictions.displacement_log_variance)[..., 1:][kept]
    sigma = np.full_like(dense, np.nan)
    sigma[place] = (np.exp(log_variance.astype(np.float64) / 2) / positions_per_second)[order]
    return DenseScores(dense, sigma)
