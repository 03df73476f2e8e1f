"""Initial values that differ from the published ones: class prior, aligned attention."""

import math
from typing import Any

import numpy as np

from astra_jax.model.config import ModelConfig

# Makes the attention of a query some ten times sharper at its own time than elsewhere.
_ALIGNED_GAIN = 1.75


def adjust_initial_values(params: dict[str, Any], config: ModelConfig) -> dict[str, Any]:
    """Fresh parameters of `ASTRA(config)` with what `config` asks for beside the published start.

    `params`: NumPy arrays; their tree is changed, the arrays are not.

    `class_prior` p: the classification head starts at probability p for every action and
    1 - p for background, instead of one half for all. Without it the first steps push all
    outputs down at once.
    `aligned_attention`: the decoder's key projections start as copies of its query
    projections, so with codes and queries on one clock each query looks at its own time first.
    Uniform attention averages the clip's content away before anything can be learned from it.
    """
    if config.class_prior is not None:
        bias = math.log(config.class_prior / (1 - config.class_prior))
        head = params["classification_head"]["output"]["dense"]
        head["bias"] = np.full_like(head["bias"], bias)
        head["bias"][0] = -bias
        head["kernel"] = head["kernel"] * np.float32(0.1)
    if config.aligned_attention:
        for i in range(config.decoder_layers):
            attention = params["decoder"][f"layer_{i}"]["cross_attention"]
            kernel = attention["query"]["kernel"] * np.float32(_ALIGNED_GAIN)
            attention["query"]["kernel"] = attention["key"]["kernel"] = kernel
    return params
