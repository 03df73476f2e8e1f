"""Several models as one: what they say of each window is averaged (section 4.4)."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Array, Float

from astra_jax.data.halves import Half
from astra_jax.data.targets import window_starts
from astra_jax.model import Predictions
from astra_jax.spotting.inference import (
    DenseScores,
    Predictor,
    batches,
    land_windows,
    read_windows,
    spots_of,
    suppression_of,
)
from astra_jax.spotting.suppression import Spots


class Ensemble:
    """Predicts halves with several models; called like a `Predictor`.

    The members agree on classes, the positions of a clip and `config.inference` (its batch size
    apart: the smallest counts). Each reads a half by its own sources, so the half may last longer
    for one than for another: windows reach to the longest end, and past its own a member sees its
    last row and frame again, as in a clip that does.
    """

    def __init__(self, members: Sequence[tuple[Predictor, Sequence[Half]]]) -> None:
        """Of each member its predictor and the halves as it reads them.

        What members share (the same object) is read once.
        """
        self.config = members[0][0].config
        self._suppression = suppression_of(self.config)
        self._batch_size = min(predictor.batch_size for predictor, _ in members)
        self._members = [
            (predictor, {(half.match, half.half): half for half in halves})
            for predictor, halves in members
        ]

    def spots(self, half: Half) -> Spots:
        """The spots of a half, given as any member reads it: dense scores, suppressed."""
        return spots_of(self.dense_scores(half), self._suppression)

    def dense_scores(self, half: Half) -> DenseScores:
        """Scores of every position of a half, given as any member reads it."""
        own = [(predictor, of[half.match, half.half]) for predictor, of in self._members]
        read = {id(half): half for _, half in own}
        seconds = max(half.seconds for half in read.values())
        starts = window_starts(seconds, self.config.inference.stride_seconds)
        parts = []
        for batch in batches(starts, self._batch_size):
            inputs = {
                key: read_windows(half, batch, self.config.clip.seconds)
                for key, half in read.items()
            }
            parts.append(average([p.predict(inputs[id(half)]) for p, half in own]))
        return land_windows(parts, starts, seconds, self.config)


def average(members: Sequence[Predictions]) -> Predictions:
    """At each position and class the mean of probabilities, of displacements and of variances.

    The paper averages "the predictions of all models"; ours are averaged before they are refined
    and landed. Variances are those of the members that have one; None where none has. Equal
    members give their own values, to the bit.
    """
    log_variances = [
        member.displacement_log_variance
        for member in members
        if member.displacement_log_variance is not None
    ]
    return Predictions(
        _mean([member.probabilities for member in members]),
        _mean([member.displacement_mean for member in members]),
        _mean_in_log(log_variances) if log_variances else None,
    )


def _mean(
    arrays: Sequence[Float[Array | np.ndarray, "clip position class"]],
) -> Float[np.ndarray, "clip position class"]:
    # In double precision the sum of equal floats is exact, and so is their mean.
    return np.mean(np.stack(arrays), axis=0, dtype=np.float64).astype(arrays[0].dtype)


def _mean_in_log(
    logs: Sequence[Float[Array | np.ndarray, "clip position class"]],
) -> Float[np.ndarray, "clip position class"]:
    """The logarithm of the mean of what these are logarithms of."""
    stacked = np.stack(logs).astype(np.float64)
    largest = stacked.max(axis=0)
    # Relative to the largest nothing overflows, and equal ones become exactly 1.
    mean = np.log(np.mean(np.exp(stacked - largest), axis=0))
    return (largest + mean).astype(logs[0].dtype)
