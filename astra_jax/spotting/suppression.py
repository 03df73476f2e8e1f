"""Dense scores to spots: the paper's one-dimensional Soft-NMS, and plain suppression."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Float, Int

from astra_jax.config.classes import SOFT_WINDOWS_SECONDS
from astra_jax.data.time import exact_rate, exact_seconds
from astra_jax.errors import UserError

Kind = Literal["soft", "hard"]
Decay = Literal["quadratic", "linear", "sqrt"]


_EXPONENTS: dict[Decay, float] = {"quadratic": 2.0, "linear": 1.0, "sqrt": 0.5}


@dataclass(frozen=True, eq=False)
class Spots:
    """What was spotted in one half, one entry a spot.

    class_ids: index of the action class, 0 being the first action (no background here).
    positions: output position inside the half.
    scores: confidence.
    sigma_seconds: standard deviation of the time, None where the model doesn't give one.
    """

    class_ids: Int[np.ndarray, "spot"]
    positions: Int[np.ndarray, "spot"]
    scores: Float[np.ndarray, "spot"]
    sigma_seconds: Float[np.ndarray, "spot"] | None = None


@dataclass(frozen=True)
class SuppressionSpec:
    """How neighbours of a spot are suppressed.

    windows_seconds: whole width of the window, one a class or a single one for all.
    threshold: smallest score that is still a spot.
    decay: how a soft window weakens towards its centre; hard suppression has none.

    Raises UserError naming the config key for a window or threshold that isn't positive.
    """

    kind: Kind = "soft"
    decay: Decay = "quadratic"
    windows_seconds: tuple[float, ...] = SOFT_WINDOWS_SECONDS
    positions_per_second: float = 2.0
    threshold: float = 0.01

    def __post_init__(self) -> None:
        if not self.windows_seconds or not all(
            math.isfinite(window) and window > 0 for window in self.windows_seconds
        ):
            raise UserError(
                "config inference.suppression.windows_seconds must hold positive numbers of "
                f"seconds, one a class or a single one; it is {self.windows_seconds}"
            )
        if not self.threshold > 0:
            raise UserError(
                f"config inference.threshold is {self.threshold}; it must be above 0, or every "
                "position becomes a spot"
            )

    @classmethod
    def from_config(
        cls,
        suppression: Mapping[str, Any],
        positions_per_second: float,
        threshold: float = 0.01,
    ) -> "SuppressionSpec":
        """Reads the config's section `inference.suppression`.

        Raises UserError naming the config key for a value that isn't allowed.
        """
        for key, allowed in (("kind", get_args(Kind)), ("decay", get_args(Decay))):
            if suppression[key] not in allowed:
                raise UserError(
                    f"config inference.suppression.{key} is {suppression[key]!r}; use one of "
                    f"{list(allowed)}"
                )
        return cls(
            kind=suppression["kind"],
            decay=suppression["decay"],
            windows_seconds=tuple(
                # Whole nanoseconds: 0.57 times 100 is 56.99999999999999.
                round(float(window) * suppression["window_scale"], 9)
                for window in suppression["windows_seconds"]
            ),
            positions_per_second=positions_per_second,
            threshold=threshold,
        )

    def half_windows(self, num_classes: int) -> tuple[float, ...]:
        """Half a window of each class, in positions: seconds * rate / 2.

        Raises UserError where the number of windows is neither 1 nor the number of classes.
        """
        windows = self.windows_seconds
        if len(windows) == 1:
            windows = windows * num_classes
        if len(windows) != num_classes:
            raise UserError(
                f"config inference.suppression.windows_seconds has {len(windows)} windows for "
                f"{num_classes} classes; give one a class or a single one"
            )
        rate = exact_rate(self.positions_per_second)
        return tuple(float(exact_seconds(window) * rate / 2) for window in windows)


def suppress(scores: Float[np.ndarray, "position class"], spec: SuppressionSpec) -> Spots:
    """Turn the dense scores of a half into spots, class by class, in the order found.

    In each class the largest score (the earliest on a tie) is a spot as long as it reaches
    the threshold; then the scores around it are weakened ("soft", paper section on Soft-NMS)
    or removed ("hard").

    scores: one column an action class, without background; not changed.
    Raises ValueError on NaN and UserError where the windows don't fit the classes.
    """
    if np.isnan(scores).any():
        raise ValueError("the scores hold NaN")
    half_windows = spec.half_windows(scores.shape[1])
    found: list[tuple[list[int], list[float]]] = []
    for column, half_window in zip(scores.T, half_windows, strict=True):
        weights = _weights(half_window, spec)
        found.append(_suppress_class(column.astype(np.float64), weights, spec.threshold))
    return Spots(
        class_ids=np.repeat(np.arange(len(found)), [len(positions) for positions, _ in found]),
        positions=np.array([i for positions, _ in found for i in positions], dtype=np.int64),
        scores=np.array([s for _, kept in found for s in kept], dtype=np.float64),
    )


def _weights(half_window: float, spec: SuppressionSpec) -> Float[np.ndarray, "offset"]:
    """Factors for the positions around a spot; the middle entry is the spot itself.

    Only whole positions inside the window have one, so no distance exceeds half the window
    and no factor exceeds 1. The hard window is open at its later end.
    """
    reach = math.floor(half_window)
    offsets = np.arange(-reach, reach + 1)
    if spec.kind == "hard":
        outside = (offsets >= half_window) & (offsets != 0)
        return outside.astype(np.float64)
    return (np.abs(offsets) / half_window) ** _EXPONENTS[spec.decay]


def _suppress_class(
    scores: Float[np.ndarray, "position"],
    weights: Float[np.ndarray, "offset"],
    threshold: float,
) -> tuple[list[int], list[float]]:
    """Positions and scores of one class's spots, in the order found. `scores` is used up."""
    reach = len(weights) // 2
    positions: list[int] = []
    kept: list[float] = []
    while len(scores):
        # One vectorised maximum a spot: some 2 microseconds for a half, less than a heap costs.
        best = int(scores.argmax())
        score = float(scores[best])
        if score < threshold:
            break
        positions.append(best)
        kept.append(score)
        start = max(0, best - reach)
        window = scores[start : best + reach + 1]
        offset = start - best + reach
        window *= weights[offset : offset + len(window)]
    return positions, kept
