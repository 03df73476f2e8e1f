"""The classification and displacement losses (section 3.5)."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from astra_jax.data.targets import TargetSpec
from astra_jax.model import Predictions

# Added to probabilities inside the logarithms, as published.
_EPSILON = 7e-5
# The balance alpha_L of equation 2.
_UNCERTAINTY_WEIGHT = 0.3


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """`focal`: the focal factor of equation 1. `weight_radius`: positions r_d - r_c, by which the
    class targets that weigh displacements reach farther.
    """

    focal: bool
    classification_weight: float
    displacement_weight: float
    weight_radius: int

    @classmethod
    def from_config(cls, loss: Mapping[str, Any], targets: TargetSpec) -> "LossConfig":
        """Reads the config's section `loss`; the radii are those of the targets."""
        return cls(weight_radius=targets.displacement_radius - targets.class_radius, **loss)


@flax.struct.dataclass
class Losses:
    """The weighted sum and its two unweighted terms."""

    total: Float[Array, ""]
    classification: Float[Array, ""]
    displacement: Float[Array, ""]


def classification_loss(
    probabilities: Float[Array | np.ndarray, "clip position class"],
    targets: Float[Array | np.ndarray, "clip position class"],
    focal: bool = True,
) -> Float[Array, ""]:
    """Binary cross-entropy, focal with gamma = 1 (equation 1).

    `-|y-p| (y log(p + 7e-5) + (1-y) log(1-p + 7e-5))`, the mean over clips, positions and all
    columns; `targets` y may be mixed. `focal` off drops the factor |y-p|.
    """
    terms = targets * jnp.log(probabilities + _EPSILON)
    terms += (1 - targets) * jnp.log(1 - probabilities + _EPSILON)
    if focal:
        terms *= jnp.abs(targets - probabilities)
    return -jnp.mean(terms)


def displacement_loss(
    mean: Float[Array | np.ndarray, "clip position class"],
    log_variance: Float[Array | np.ndarray, "clip position class"] | None,
    targets: Float[Array | np.ndarray, "clip position class"],
    mask: Bool[Array | np.ndarray, "clip position class"],
    class_targets: Float[Array | np.ndarray, "clip position class"],
    weight_radius: int,
) -> Float[Array, ""]:
    """Negative log likelihood of displacements where a target exists (equation 2).

    `0.3 (d-mu)^2 / exp(lv) + 0.7 lv`, or `(d-mu)^2` without uncertainty, weighted by the class
    target max-pooled over a centred window of `2 weight_radius + 1` positions, summed and divided
    by clips times positions. Displacements are in output positions. (The published scores came
    from this.) The paper's text divides by the number of targets and has no such weight.

    Nothing that `mean`, `log_variance` and `targets` hold where `mask` is off reaches the loss or
    a gradient, not even an infinity.
    """
    # Masked before the formula as well: the gradient of `where` is 0 times the formula's own, and
    # 0 times infinity is NaN.
    error = jnp.square(jnp.where(mask, targets - mean, 0.0))
    if log_variance is not None:
        weight = _UNCERTAINTY_WEIGHT
        log_variance = jnp.where(mask, log_variance, 0.0)
        error = weight * error * jnp.exp(-log_variance) + (1 - weight) * log_variance
    window = 2 * weight_radius + 1
    lowest = np.zeros((), class_targets.dtype)  # of the same type with 64 bits enabled, too
    reach = jax.lax.reduce_window(
        class_targets, lowest, jax.lax.max, (1, window, 1), (1, 1, 1), "SAME"
    )
    clips, positions, _ = mean.shape
    return jnp.sum(jnp.where(mask, error * reach, 0.0)) / (clips * positions)


def losses(
    predictions: Predictions,
    class_targets: Float[Array | np.ndarray, "clip position class"],
    displacements: Float[Array | np.ndarray, "clip position class"],
    displacement_mask: Bool[Array | np.ndarray, "clip position class"],
    config: LossConfig,
) -> Losses:
    """Both losses and `classification_weight * L_c + displacement_weight * L_d`."""
    classification = classification_loss(predictions.probabilities, class_targets, config.focal)
    displacement = displacement_loss(
        predictions.displacement_mean,
        predictions.displacement_log_variance,
        displacements,
        displacement_mask,
        class_targets,
        config.weight_radius,
    )
    total = config.classification_weight * classification
    total += config.displacement_weight * displacement
    return Losses(total, classification, displacement)
