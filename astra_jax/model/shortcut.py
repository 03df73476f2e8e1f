"""The shortcut: from the raw columns around an output position straight to its logits."""

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int

from astra_jax.model.config import ModelConfig
from astra_jax.model.layers import clock


def row_of_position(rows: int, positions: int) -> Int[np.ndarray, " position"]:
    """The row of a source in which each output position of a clip lies."""
    starts = clock(rows, positions)
    return np.searchsorted(starts, np.arange(positions), side="right") - 1


class Shortcut(nn.Module):
    """One linear map a source, over the rows within `shortcut_reach` of a position.

    What a column says of a class needs no hundred examples to be learned then
    (docs/small_data.md). Starts at zero, and is not part of the published model.
    """

    config: ModelConfig

    @nn.compact
    def __call__(
        self, features: tuple[Float[Array, "clip row column"], ...]
    ) -> Float[Array, "clip position class"]:
        """What the sources add to the logits; absent rows are zeros and add nothing."""
        cfg = self.config
        total = jnp.zeros((), jnp.float32)
        for i, (rows, source) in enumerate(zip(features, cfg.sources, strict=True)):
            reach = round(cfg.shortcut_reach * source.rows / cfg.positions)
            logits = nn.Conv(
                cfg.classes + 1,
                (2 * reach + 1,),
                use_bias=False,
                kernel_init=nn.initializers.zeros,
                name=f"source_{i}",
            )(rows)
            total += logits[:, row_of_position(source.rows, cfg.positions)]
        return total
