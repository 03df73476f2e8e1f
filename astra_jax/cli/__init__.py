"""The `astra` command: a file a verb, with `add` (its arguments) and `run`."""

from astra_jax.cli.main import main

__all__ = ["main"]
