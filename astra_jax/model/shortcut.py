"""The shortcut: from the raw columns around an output position straight to its logits."""

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from astra_jax.model.config import ModelConfig
from astra_jax.model.layers import Linear, clock


def knots_of(reach: float, unit: float) -> list[float]:
    """Distances 0, 1, 2, 4, 8, ... units to either side, in order, none beyond `reach`."""
    sides, distance = [], unit
    while distance <= reach:
        sides.append(distance)
        distance *= 2
    return [-d for d in reversed(sides)] + [0.0] + sides


def tents(
    rows: int, positions: int, reach: float, unit: float
) -> Float[np.ndarray, "position knot row"]:
    """What each row counts in the view of each position through each knot.

    A knot sees a weighted mean of rows: most the one at its distance, falling to nothing at its
    neighbours'. So near rows are seen one by one and far ones blurred. Rows outside the clip count
    as zeros.

    Args:
        rows: of the source in a clip.
        positions: output positions in a clip.
        reach: distance of the farthest knots, in positions.
        unit: distance of the nearest, in positions; at least that of two rows.
    """
    knots = knots_of(reach, max(unit, positions / rows))
    bounds = [2 * knots[0] - 1, *knots, 2 * knots[-1] + 1] if len(knots) == 1 else [
        knots[0] * 2, *knots, knots[-1] * 2
    ]
    row_times = np.arange(-rows, 2 * rows) * (positions / rows)
    distance = row_times[None, :] - clock(positions, positions)[:, None]
    weights = np.stack(
        [
            np.interp(distance, bounds[k : k + 3], [0.0, 1.0, 0.0], left=0.0, right=0.0)
            for k in range(len(knots))
        ],
        axis=1,
    )
    weights /= np.maximum(weights.sum(axis=2, keepdims=True), 1e-9)
    return weights[:, :, rows : 2 * rows].astype(np.float32)


class Shortcut(nn.Module):
    config: ModelConfig

    @nn.compact
    def __call__(
        self, features: tuple[Float[Array, "clip row column"], ...]
    ) -> Float[Array, "clip position class"]:
        """What the sources add to the logits; absent rows are zeros and add nothing."""
        cfg = self.config
        views = []
        for rows, source in zip(features, cfg.sources, strict=True):
            weights = tents(source.rows, cfg.positions, cfg.shortcut_reach, cfg.shortcut_unit)
            view = jnp.einsum("pkr,brc->bpkc", weights, rows)
            views.append(view.reshape(*view.shape[:2], -1))
        view = jnp.concatenate(views, axis=-1)
        total = nn.Dense(cfg.classes + 1, use_bias=False, kernel_init=nn.initializers.zeros, name="linear")(view)
        return total
