"""Events to class targets, displacements and masks, and back.

The one home of the displacement's sign: a displacement is position minus event, in output
positions, so a refined position is position minus displacement.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Real

from astra_jax.data.time import index_at, steps_of


@dataclass(frozen=True)
class ClipConfig:
    """How halves are cut into clips, and how many output positions a second of them has.

    `random_starts`: whether each epoch cuts elsewhere, up to a stride earlier.
    """

    seconds: float
    positions_per_second: float
    stride_seconds: float = 25.0
    random_starts: bool = False

    @classmethod
    def from_config(cls, clip: Mapping[str, Any]) -> "ClipConfig":
        """Reads the config's section `clip`."""
        return cls(**clip)


@dataclass(frozen=True)
class TargetSpec:
    """Shape of a clip's targets: its length, rate and radii in seconds, and how many actions."""

    clip_seconds: float
    positions_per_second: float
    class_radius_seconds: float
    displacement_radius_seconds: float
    num_classes: int

    @property
    def positions(self) -> int:
        """Output positions of a clip."""
        return steps_of(self.clip_seconds, self.positions_per_second)

    @property
    def class_radius(self) -> int:
        """Whole positions in the class radius r_c."""
        return index_at(self.class_radius_seconds, self.positions_per_second)

    @property
    def displacement_radius(self) -> int:
        """Whole positions in the displacement radius r_d."""
        return index_at(self.displacement_radius_seconds, self.positions_per_second)

    @classmethod
    def from_config(
        cls, targets: Mapping[str, Any], clip: ClipConfig, num_classes: int
    ) -> "TargetSpec":
        """Reads the config's section `targets`; clips are cut as `clip` says."""
        return cls(
            clip_seconds=clip.seconds,
            positions_per_second=clip.positions_per_second,
            num_classes=num_classes,
            **targets,
        )


@dataclass(frozen=True, eq=False)
class Targets:
    """What a clip's output should be; column 0 is background, action c is column c + 1.

    `displacements` count where `displacement_mask` is True and are 0 elsewhere; background has
    none.
    """

    class_targets: Float32[np.ndarray, "position class"]
    displacements: Float32[np.ndarray, "position class"]
    displacement_mask: Bool[np.ndarray, "position class"]


def clip_targets(
    positions: Int[np.ndarray, "event"],
    class_ids: Int[np.ndarray, "event"],
    start_position: int,
    spec: TargetSpec,
) -> Targets:
    """Targets of the clip that begins at `start_position`, from the positions of a half's events.

    `positions` count from the start of the half, `class_ids` are actions from 0. Only events inside
    the clip count. Class targets are 1 within the class radius of an event, both ends included,
    background is 1 where no action is. Within the displacement radius the displacement is that to
    the nearest event of the class, the earlier on a tie (paper, section 3: radii r_c and r_d).
    Differs from the published implementation: where two events of a class are close, it lets the
    later annotation overwrite its whole range; and it drops events in the last 25 s of a half's
    last clip.
    """
    shape = (spec.positions, spec.num_classes + 1)
    class_targets = np.zeros(shape, np.float32)
    displacements = np.zeros(shape, np.float32)
    distances = np.full(shape, np.inf)
    class_radius, displacement_radius = spec.class_radius, spec.displacement_radius
    offsets = np.arange(-displacement_radius, displacement_radius + 1)
    within = positions - start_position
    inside = np.flatnonzero((within >= 0) & (within < spec.positions))
    for event in inside[np.argsort(within[inside], kind="stable")]:
        at, column = int(within[event]), int(class_ids[event]) + 1
        class_targets[max(at - class_radius, 0) : at + class_radius + 1, column] = 1
        first = max(at - displacement_radius, 0)
        last = min(at + displacement_radius + 1, spec.positions)
        offset = offsets[first - at + displacement_radius : last - at + displacement_radius]
        nearer = np.abs(offset) < distances[first:last, column]
        displacements[first:last, column][nearer] = offset[nearer]
        distances[first:last, column][nearer] = np.abs(offset[nearer])
    class_targets[:, 0] = ~class_targets[:, 1:].any(axis=1)
    return Targets(class_targets, displacements, np.isfinite(distances))


def refine(
    positions: Real[np.ndarray, "*#shape"], displacement_mean: Float[np.ndarray, "*#shape"]
) -> Float[np.ndarray, "*#shape"]:
    """Where the model places the events: its output positions minus its displacements.

    Any shapes that broadcast; positions in, positions out, neither rounded nor clamped.
    """
    return positions - displacement_mean
