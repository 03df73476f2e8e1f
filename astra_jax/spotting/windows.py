"""From what is predicted of overlapping windows to one score a position (section 3.6)."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TypeVar

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from astra_jax.data.targets import refine
from astra_jax.data.time import Exact, index_at, steps_touched
from astra_jax.model import Predictions

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class DenseScores:
    """A half's scores at every output position, action classes only.

    `sigma_seconds` is the standard deviation of the time at the window and position that gave
    the score, NaN where there is no score; None for a model without uncertainty.
    """

    scores: Float[np.ndarray, "position class"]
    sigma_seconds: Float[np.ndarray, "position class"] | None


def batch_windows(starts: Sequence[T], size: int) -> Iterator[list[T]]:
    """Windows, by their starts or numbers, `size` at a time."""
    for first in range(0, len(starts), size):
        chosen = list(starts[first : first + size])
        # A short batch is filled up with its last window, so one program serves all.
        yield chosen + chosen[-1:] * (size - len(chosen))


def merge_windows(
    parts: Sequence[Predictions],
    starts: Sequence[Exact],
    seconds: Exact,
    positions_per_second: float,
    overlap: str,
    threshold: float,
) -> DenseScores:
    """The dense scores of a half of so many seconds.

    Args:
        parts: the predictions of windows, one after the other, NumPy arrays.
        overlap: what stays where windows overlap, the largest score ("max") or the "mean".
        threshold: smallest probability that becomes a score.
    """
    predictions = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
    first_positions = np.array([index_at(start, positions_per_second) for start in starts])
    positions = steps_touched(seconds, positions_per_second)
    if overlap == "mean":
        predictions = average_windows(predictions, first_positions, positions)
        first_positions = np.zeros(1, np.int64)
    return place_scores(
        predictions,
        first_positions,
        positions=positions,
        positions_per_second=positions_per_second,
        threshold=threshold,
    )


def average_windows(
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


def place_scores(
    predictions: Predictions,
    starts: Int[np.ndarray, " window"],
    positions: int,
    positions_per_second: float,
    threshold: float = 0.01,
) -> DenseScores:
    """Puts the windows' predictions onto the positions of a half.

    Every position t and action with a probability above `threshold` goes to
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
    placed = np.rint(refine(starts[window] + step, mean)).astype(np.int64)
    placed = np.clip(placed, 0, positions - 1)
    # Rising scores, and of equal ones the earliest last: the last assignment stays.
    order = np.lexsort((-np.arange(len(score)), score))
    place = (placed[order], action[order])
    dense = np.zeros((positions, probabilities.shape[-1]))
    dense[place] = score[order]
    if predictions.displacement_log_variance is None:
        return DenseScores(dense, None)
    log_variance = np.asarray(predictions.displacement_log_variance)[..., 1:][kept]
    sigma = np.full_like(dense, np.nan)
    sigma[place] = (np.exp(log_variance.astype(np.float64) / 2) / positions_per_second)[order]
    return DenseScores(dense, sigma)
