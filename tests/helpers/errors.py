"""What a user is told of a fault: one line that names it."""

import pytest

from astra_jax.errors import UserError


def check_line(error: pytest.ExceptionInfo[UserError], *words: str) -> None:
    """Fails where the error is not one line, or lacks one of the words."""
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message
