"""Starts of training that differ from the published one: class prior, aligned attention."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jaxtyping import Array, Key

from astra_jax.model.astra import ASTRA
from astra_jax.model.config import ModelConfig

# Makes the attention of a query some ten times sharper at its own time than elsewhere.
_ALIGNED_GAIN = 1.75


def apply_start(params: dict[str, Any], config: ModelConfig) -> dict[str, Any]:
    """Fresh parameters of `ASTRA(config)` with what `config` asks for beside the published start.

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
        head["bias"] = jnp.full_like(head["bias"], bias).at[0].set(-bias)
        head["kernel"] = head["kernel"] * 0.1
    if config.aligned_attention:
        for i in range(config.decoder_layers):
            attention = params["decoder"][f"layer_{i}"]["cross_attention"]
            kernel = attention["query"]["kernel"] * _ALIGNED_GAIN
            attention["query"]["kernel"] = attention["key"]["kernel"] = kernel
    return params


def example_inputs(config: ModelConfig) -> dict[str, Any]:
    """Zeros of the shapes the model takes, one clip."""
    return {
        "features": tuple(jnp.zeros((1, s.rows, s.width)) for s in config.sources),
        "log_mel": None
        if config.audio is None
        else jnp.zeros((1, config.audio.frames, config.audio.mels)),
    }


def init_params(config: ModelConfig, key: Key[Array, ""]) -> Any:
    """Fresh parameters of `ASTRA(config)`."""
    params = ASTRA(config).init(key, example_inputs(config), train=False)["params"]
    return apply_start(params, config)


def abstract_params(config: ModelConfig, sharding: NamedSharding) -> Any:
    """Shapes, types and placement of the parameters; nothing is computed."""
    shapes = jax.eval_shape(lambda key: init_params(config, key), jax.random.key(0))
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), shapes
    )


def parameter_count(params: Any) -> int:
    """How many numbers a tree of parameters holds."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
