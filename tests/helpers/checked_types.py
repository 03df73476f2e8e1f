"""Checks every call into the package against its signature: types, shapes, what axes share."""

from collections.abc import Callable

import numpy as np
from beartype import BeartypeConf, FrozenDict, beartype
from jaxtyping import install_import_hook

# A whole number will do for a float, as type checkers have it, and NumPy's numbers for Python's.
_NUMBERS = {int: int | np.integer, float: float | int | np.integer | np.floating}
_check = beartype(conf=BeartypeConf(hint_overrides=FrozenDict(_NUMBERS)))

# JAX rebuilds the state around leaves that are no arrays (shapes, shardings); values of a user's
# config are checked by hand, for a UserError.
_UNCHECKED = ("TrainState.__init__", "StepValues.__init__", "ModelConfig.__init__")


def check_types(function: Callable) -> Callable:
    """`function`, raising where an argument or what it returns is none of its type."""
    return function if function.__qualname__ in _UNCHECKED else _check(function)


def install() -> None:
    """From now on modules of the package are imported checked."""
    install_import_hook("astra_jax", "helpers.checked_types.check_types")
