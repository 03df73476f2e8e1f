"""Every config value: defaults, recipes, files with overrides, what a run keeps, the checks."""

from astra_jax.config.clock import clock_source
from astra_jax.config.defaults import paper
from astra_jax.config.recipes import small_data

__all__ = ["clock_source", "paper", "small_data"]
