"""The classification and displacement losses (section 3.5)."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, get_args

import flax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from astra_jax.data.targets import TargetSpec
from astra_jax.errors import UserError
from astra_jax.model import Predictions

Normalization = Literal["positions", "targets"]

# Added to probabilities inside the logarithms, as published.
_EPSILON = 7e-5
# The balance alpha_L of equation 2.
_UNCERTAINTY_WEIGHT = 0.3


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """`focal`: the focal factor of equation 1. `weight_radius`: positions r_d - r_c, by
    which the class targets that weigh displacements reach farther.

    `displacement_normalization`: by clips times positions as published, or by the number of
    targets (equation 2). `class_weights`: one an action, None for 1 each.
    """

    focal: bool
    classification_weight: float
    displacement_weight: float
    weight_radius: int
    displacement_normalization: Normalization = "positions"
    class_weights: tuple[float, ...] | None = None

    @classmethod
    def from_config(cls, loss: Mapping[str, Any], targets: TargetSpec) -> "LossConfig":
        """Reads the config's section `loss`; the radii are those of the targets.

        Raises:
            UserError: a normalisation that there isn't.
        """
        kind, kinds = loss["displacement_normalization"], get_args(Normalization)
        if kind not in kinds:
            raise UserError(
                f"config.loss.displacement_normalization: {kind!r}, it must be one of "
                f"{', '.join(kinds)}"
            )
        seconds = targets.displacement_radius_seconds - targets.class_radius_seconds
        return cls(weight_radius=round(seconds * targets.positions_per_second), **loss)


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
    class_weights: tuple[float, ...] | None = None,
) -> Float[Array, ""]:
    """Binary cross-entropy, focal with gamma = 1 (equation 1).

    `-|y-p| (y log(p + 7e-5) + (1-y) log(1-p + 7e-5))`, the mean over clips, positions and all
    columns; `targets` y may be mixed. `focal` off drops the factor |y-p|. `class_weights` multiply
    the terms of the actions, background's stay; the mean still divides by the number of columns.
    """
    terms = targets * jnp.log(probabilities + _EPSILON)
    terms += (1 - targets) * jnp.log(1 - probabilities + _EPSILON)
    if focal:
        terms *= jnp.abs(targets - probabilities)
    if class_weights is not None:
        terms *= jnp.array((1.0, *class_weights), terms.dtype)
    return -jnp.mean(terms)


def displacement_loss(
    mean: Float[Array | np.ndarray, "clip position class"],
    log_variance: Float[Array | np.ndarray, "clip position class"] | None,
    targets: Float[Array | np.ndarray, "clip position class"],
    mask: Bool[Array | np.ndarray, "clip position class"],
    class_targets: Float[Array | np.ndarray, "clip position class"],
    weight_radius: int,
    target_count: Float[Array, ""] | None = None,
) -> Float[Array, ""]:
    """Negative log likelihood of displacements where a target exists (equation 2).

    `0.3 (d-mu)^2 / exp(lv) + 0.7 lv`, or `(d-mu)^2` without uncertainty, weighted by the class
    target max-pooled over a centred window of `2 weight_radius + 1` positions, summed and divided
    by clips times positions. Displacements are in output positions. (The published scores came
    from this.) With `target_count`, as in the paper: no class-target weight, and the sum divided
    by that number of targets; 0 where it is 0.
    """
    error = jnp.square(targets - mean)
    if log_variance is not None:
        weight = _UNCERTAINTY_WEIGHT
        error = weight * error * jnp.exp(-log_variance) + (1 - weight) * log_variance
    if target_count is not None:
        total = jnp.sum(jnp.where(mask, error, 0.0))
        return total / jnp.where(target_count > 0, target_count, 1.0)
    window = 2 * weight_radius + 1
    reach = jax.lax.reduce_window(
        class_targets, 0.0, jax.lax.max, (1, window, 1), (1, 1, 1), "SAME"
    )
    clips, positions, _ = mean.shape
    return jnp.sum(jnp.where(mask, error * reach, 0.0)) / (clips * positions)


def losses(
    predictions: Predictions,
    class_targets: Float[Array | np.ndarray, "clip position class"],
    displacements: Float[Array | np.ndarray, "clip position class"],
    displacement_mask: Bool[Array | np.ndarray, "clip position class"],
    config: LossConfig,
    target_count: Float[Array, ""] | None = None,
) -> Losses:
    """Both losses and `classification_weight * L_c + displacement_weight * L_d`.

    `target_count` is what the normalisation by targets divides by; None: those of
    `displacement_mask`. The parts of a batch are given their share of the whole batch's.
    """
    classification = classification_loss(
        predictions.probabilities, class_targets, config.focal, config.class_weights
    )
    by_targets = config.displacement_normalization == "targets"
    if by_targets and target_count is None:
        target_count = jnp.sum(displacement_mask, dtype=jnp.float32)
    displacement = displacement_loss(
        predictions.displacement_mean,
        predictions.displacement_log_variance,
        displacements,
        displacement_mask,
        class_targets,
        config.weight_radius,
        target_count if by_targets else None,
    )
    total = config.classification_weight * classification
    total += config.displacement_weight * displacement
    return Losses(total, classification, displacement)
