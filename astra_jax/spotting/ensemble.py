"""Several models' predictions as one: the mean at each position and class (section 4.4)."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Array, Float

from astra_jax.model import Predictions


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
