"""ASTRA in linen: embeddings, hierarchical encoder, decoder with learned queries, heads."""

from astra_jax.model.astra import ASTRA
from astra_jax.model.config import ModelConfig, SourceShape, VGGishConfig
from astra_jax.model.interface import (
    Predictions,
    SpottingModel,
    abstract_params,
    count_parameters,
)

__all__ = [
    "ASTRA",
    "VGGishConfig",
    "ModelConfig",
    "Predictions",
    "SourceShape",
    "SpottingModel",
    "abstract_params",
    "count_parameters",
]
