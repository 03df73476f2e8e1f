"""Action spotting in football broadcasts with ASTRA, in JAX."""

__version__ = "0.1.0"
