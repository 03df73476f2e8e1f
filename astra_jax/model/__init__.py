"""ASTRA in linen: embeddings, hierarchical encoder, decoder with learned queries, heads."""

from astra_jax.model.astra import ASTRA, Predictions
from astra_jax.model.config import AudioConfig, ModelConfig, SourceConfig

__all__ = ["ASTRA", "AudioConfig", "ModelConfig", "Predictions", "SourceConfig"]
