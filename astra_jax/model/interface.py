"""What training and spotting ask of a model, be it `ASTRA` or something smaller in its place."""

import functools
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import NamedSharding
from jaxtyping import Array, Bool, Float, Key

from astra_jax.model.config import ModelConfig
from astra_jax.model.initializers import described, draw


@flax.struct.dataclass
class Predictions:
    """What a model says of clips, for each output position and class (class 0 is background).

    Displacements are in output positions: an event lies at position - displacement. The log
    variance is None for a model without uncertainty. All float32;
    NumPy arrays once they were fetched from the devices.
    """

    probabilities: Float[Array | np.ndarray, "clip position class"]
    displacement_mean: Float[Array | np.ndarray, "clip position class"]
    displacement_log_variance: Float[Array | np.ndarray, "clip position class"] | None


class SpottingModel(nn.Module):
    """Clips to `Predictions`: `apply({"params": params}, inputs, train=False)`; see `ASTRA`."""

    config: ModelConfig

    @nn.nowrap
    def initial_params(self, seed: int) -> Any:
        """Fresh parameters, NumPy arrays: the same from a seed on any device.

        Those whose initialisers are not of `model.initializers` are drawn by JAX.
        """
        drawn, others = draw(_described(self), seed)
        if others:

            @jax.jit  # of what isn't returned nothing is computed
            def draw_others(key: Key[Array, ""]) -> Any:
                params = self.init(key, example_inputs(self.config), train=False)["params"]
                return {path: flatten_dict(params, sep="/")[path] for path in others}

            drawn |= jax.device_get(draw_others(jax.random.key(seed, impl="threefry2x32")))
        return unflatten_dict(drawn, sep="/")

    def embed_pieces(
        self, stream: int, pieces: Float[Array, "piece *column"], present: Bool[Array, " piece"]
    ) -> Any:
        """What is computed of every row of a source, or every audio segment, by itself.

        At inference windows share it. `stream` counts the sources, then the audio; segments are
        (piece, frame, mel). Arrays come back with the leading axis `piece`; here the pieces as
        they are.
        """
        del stream, present
        return pieces

    def predict_embedded(
        self, embedded: tuple[Any, ...], present: tuple[Bool[Array, "clip _"], ...]
    ) -> Predictions:
        """Predicts clips from what `embed_pieces` gave, of each stream with axes (clip, piece).

        Same as `apply` of the clips, but for frames of audio after the last whole segment.
        """
        count, audio = len(self.config.sources), self.config.audio
        inputs: dict[str, Any] = {
            "features": embedded[:count],
            "log_mel": None,
            "masks": {"features": present[:count]},
        }
        if audio is not None:
            segments = embedded[count]
            inputs["log_mel"] = segments.reshape(segments.shape[0], -1, audio.mels)
            inputs["masks"]["log_mel"] = jnp.repeat(present[count], audio.segment_frames, axis=1)
        return self(inputs)


@functools.lru_cache(maxsize=8)  # a start asks several times, and tracing a model takes long
def _described(model: SpottingModel) -> Any:
    """Shapes and types of the parameters, and how they are distributed."""
    inputs = example_inputs(model.config)
    with described():
        return jax.eval_shape(
            lambda key: model.init(key, inputs, train=False)["params"],
            jax.eval_shape(jax.random.key, 0),
        )


def example_inputs(config: ModelConfig) -> dict[str, Any]:
    """Zeros of the shapes the model takes, one clip."""
    return {
        "features": tuple(np.zeros((1, s.rows, s.width), np.float32) for s in config.sources),
        "log_mel": None
        if config.audio is None
        else np.zeros((1, config.audio.frames, config.audio.mels), np.float32),
    }


def abstract_params(model: SpottingModel, sharding: NamedSharding) -> Any:
    """Shapes, types and placement of the parameters; nothing is computed."""
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        nn.meta.unbox(_described(model)),
    )


def count_parameters(params: Any) -> int:
    """How many numbers a tree of parameters holds."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
