"""Out of memory: a line that says which keys to turn."""

import contextlib
import re
from collections.abc import Iterator

import jax

from astra_jax.errors import UserError, one_line

TRAINING = (
    "lower training.batch_size, raise training.accumulation_steps (the same batch in smaller "
    "parts) or set model.remat=True (less memory, more time)"
)
EVALUATION = "lower inference.batch_size (--config.inference.batch_size=8)"

_SIGNS = re.compile("RESOURCE_EXHAUSTED|out.of.memory|allocat|bad_alloc", re.IGNORECASE)
_LONGEST = 160


@contextlib.contextmanager
def explain_shortage(mend: str) -> Iterator[None]:
    """Turns an allocation that fails, on a device or here, into a UserError that ends in `mend`.

    Any other error passes as it is.
    """
    try:
        yield
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if not ran_out(error):
            raise
        reason = one_line(error, _LONGEST)
        kind = jax.devices()[0].device_kind
        raise UserError(f"out of memory on {kind} ({reason}): {mend}") from error


def ran_out(error: BaseException) -> bool:
    """Whether an error says that memory ran out, as NumPy, Python, XLA or a driver says it."""
    return isinstance(error, MemoryError) or bool(_SIGNS.search(str(error)))
