"""Mel power and decibels."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

MAX_POWER = 7430.77
"""0 dB: the largest mel power in the published system's data set."""

MIN_POWER = 1e-10
"""Power below this counts as this."""


def power_to_db(
    power: Float[np.ndarray | jax.Array, "*shape"], floor_db: float = -80.0
) -> Float[np.ndarray | jax.Array, "*shape"]:
    """Mel power to decibels below the power 7430.77, never below `floor_db`; any shape.

    NumPy arrays come back as NumPy arrays, JAX arrays as JAX arrays; float32 stays float32, half
    precision becomes float32.
    Differs from the published implementation: the floor is fixed, not 80 dB below the batch's
    loudest frame, so a clip's values do not depend on its neighbours.
    """
    xp = jnp if isinstance(power, jax.Array) else np
    # Half precision knows no 1e-10.
    power = power.astype(xp.promote_types(power.dtype, np.float32))
    decibels = 10.0 * xp.log10(xp.maximum(power, MIN_POWER) / MAX_POWER)
    return xp.maximum(decibels, floor_db)
