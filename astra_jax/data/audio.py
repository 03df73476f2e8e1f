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
    if isinstance(power, jax.Array):
        power = power.astype(jnp.promote_types(power.dtype, np.float32))
        return jnp.maximum(10.0 * jnp.log10(jnp.maximum(power, MIN_POWER) / MAX_POWER), floor_db)
    # Half precision knows no 1e-10.
    decibels = power.astype(np.promote_types(power.dtype, np.float32))
    turn_to_db(decibels, floor_db)
    return decibels


def turn_to_db(power: Float[np.ndarray, "*shape"], floor_db: float) -> None:
    """`power_to_db` in place."""
    np.maximum(power, MIN_POWER, out=power)
    power /= MAX_POWER
    np.log10(power, out=power)
    power *= 10.0
    np.maximum(power, floor_db, out=power)
