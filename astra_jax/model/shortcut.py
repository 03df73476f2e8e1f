"""The shortcut: from the raw columns around an output position straight to the heads."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from astra_jax.model.config import ModelConfig
from astra_jax.model.layers import Linear, step_times, zeros


def knot_distances(reach: float, unit: float) -> list[float]:
    """Distances of 0, 1, 2, 4, 8, ... units to both sides, rising, none beyond `reach`."""
    side: list[float] = []
    while (distance := unit * 2 ** len(side)) <= reach:
        side.append(distance)
    return [-distance for distance in reversed(side)] + [0.0] + side


def knot_weights(
    rows: int, positions: int, reach: float, unit: float
) -> Float[np.ndarray, "position knot row"]:
    """What each row counts in what each position sees at each knot.

    At a knot a weighted mean of rows is seen: most the rows at its distance, falling linearly to
    nothing at its neighbours', so that near rows are seen one by one and far ones blurred. Rows
    outside the clip count as zeros.

    Args:
        rows: of the source in a clip.
        positions: output positions in a clip.
        reach: distance of the farthest knots, in positions.
        unit: distance of the nearest, in positions; raised to that from one row to the next.
    """
    spacing = positions / rows
    unit = max(unit, spacing)
    knots = knot_distances(reach, unit)
    outer = max(2 * knots[-1], unit)
    bounds = [-outer, *knots, outer]
    # Rows outside the clip are there when the weights are scaled to means, and cut off then.
    count = rows + 2 * int(np.ceil(outer / spacing))
    outside = (count - rows) // 2
    times = (np.arange(count) - outside) * spacing
    distances = times[None, :] - step_times(positions, positions)[:, None]
    weights = np.stack(
        [np.interp(distances, bounds[k : k + 3], (0, 1, 0), 0, 0) for k in range(len(knots))],
        axis=1,
    )
    weights /= weights.sum(axis=2, keepdims=True)
    return weights[:, :, outside : outside + rows].astype(np.float32)


class Shortcut(nn.Module):
    """What a position sees of the sources' first columns, at knots that widen with distance.

    It goes two ways: by a linear map that starts at zero to the logits, and by a linear layer
    into what the heads are given. What a column says of a class needs no hundred examples to be
    learned then (docs/small_data.md). Not part of the published model.
    """

    config: ModelConfig

    @nn.compact
    def __call__(
        self, features: tuple[Float[Array, "clip _ _"], ...]
    ) -> tuple[Float[Array, "clip position class"], Float[Array, "clip position dim"]]:
        """What is added to the logits and to the decoder's output; absent rows are zeros."""
        cfg = self.config
        assert cfg.shortcut_reach is not None  # else ASTRA has no shortcut
        seen = []
        for rows, source in zip(features, cfg.sources, strict=True):
            columns = rows[..., : source.shortcut_columns]
            weights = knot_weights(
                source.rows, cfg.positions, cfg.shortcut_reach, cfg.shortcut_unit
            )
            at_knots = jnp.einsum("pkr,brc->bpkc", weights, columns)
            seen.append(at_knots.reshape(*at_knots.shape[:2], -1))
        x = jnp.concatenate(seen, axis=-1)
        logits = nn.Dense(
            cfg.num_classes + 1,
            use_bias=False,
            dtype=jnp.float32,
            precision=jax.lax.Precision.HIGHEST,  # as the logits that it is added to
            kernel_init=zeros,
            name="logits",
        )(x)
        return logits, Linear(cfg.dim, name="queries")(x)
