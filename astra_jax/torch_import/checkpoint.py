"""Published checkpoints: the names and layouts of their state dicts to ours. Needs no torch."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from astra_jax.errors import UserError
from astra_jax.model.config import AudioConfig, ModelConfig, SourceConfig
from astra_jax.torch_import.names import CONVOLUTIONS, read_sizes

State = Mapping[str, Shaped[np.ndarray, "..."]]
Params = dict[str, Any]


def from_state_dict(
    state: State, heads: int = 8, hierarchical: bool = True
) -> tuple[ModelConfig, Params]:
    """Turns a published `state_dict` into a model's config and parameters.

    Args:
        state: arrays by the published names. Sizes, the rows of a clip and the number of
            positions are read off the shapes; queue buffers are ignored.
        heads: attention heads; the shapes don't tell.
        hierarchical: whether the checkpoint's encoder was hierarchical; nor do they tell this.

    Returns:
        The config (augmentation at the published rates where the checkpoint has its learned
        vectors, off elsewhere; float32 at the highest precision) and the `params` of
        `ASTRA(config)`.

    Raises:
        UserError: tensors are missing, of shapes that don't fit, or left over that no part of the
            model takes, all of them named; or `heads` doesn't divide the model.
    """
    sizes = read_sizes({name: np.shape(array) for name, array in state.items()})
    if heads < 1 or sizes.dim % heads:
        raise UserError(
            f"checkpoint: its {sizes.dim} columns can't be split over {heads} attention heads: "
            "give the number it was trained with (the published models have 8)"
        )
    config = ModelConfig(
        sources=(SourceConfig(sizes.rows, sizes.widths),),
        audio=sizes.audio,
        positions=sizes.positions,
        classes=sizes.outputs - 1,
        dim=sizes.dim,
        heads=heads,
        feed_forward=sizes.feed_forward,
        encoder_layers=sizes.encoder_layers,
        decoder_layers=sizes.decoder_layers,
        hierarchical=hierarchical,
        uncertainty=sizes.uncertainty,
        temporal_dropout=0.5 if sizes.augmented else 0.0,
        temporal_switch=0.3 if sizes.augmented else 0.0,
        dtype="float32_highest",
    )
    return config, _params({name: np.asarray(array) for name, array in state.items()}, config)


def _params(state: State, config: ModelConfig) -> Params:
    heads = config.heads
    params: Params = {"source_0": _source(state, config)}
    if config.audio is not None:
        params["audio"] = _audio(state, config.audio)
    params["encoder"] = {
        f"layer_{i}": _encoder_layer(state, f"Tencoder.layers.{i}", heads)
        for i in range(config.encoder_layers)
    }
    params["decoder"] = {
        f"layer_{i}": _decoder_layer(state, f"Tdecoder.layers.{i}", heads)
        for i in range(config.decoder_layers)
    }
    params["decoder"]["queries"] = state["queries"]
    params["classification_head"] = _plain_head(state, "clas_head.head")
    params["displacement_head"] = (
        _uncertainty_head(state) if config.uncertainty else _plain_head(state, "displ_head.head")
    )
    return params


def _kernel(state: State, name: str) -> Params:
    return {"kernel": state[f"{name}.weight"].T, "bias": state[f"{name}.bias"]}


def _linear(state: State, name: str) -> Params:
    return {"dense": _kernel(state, name)}


def _norm(state: State, name: str) -> Params:
    return {"norm": {"scale": state[f"{name}.weight"], "bias": state[f"{name}.bias"]}}


def _source(state: State, config: ModelConfig) -> Params:
    params: Params = {"time_code": state["encTB"], "embedding_code": state["encFB"]}
    for i in range(len(config.sources[0].widths)):
        params[f"projection_{i}"] = {
            "hidden": _linear(state, f"baidu_LL.{i}.head.1"),
            "output": _linear(state, f"baidu_LL.{i}.head.4"),
        }
    if config.temporal_dropout:
        params["dropped_step"] = state["temporal_dropB.embedding"]
    return params


def _audio(state: State, audio: AudioConfig) -> Params:
    vggish: Params = {
        f"conv_{i}": {
            "kernel": state[f"vggish_features.{n}.weight"].transpose(2, 3, 1, 0),
            "bias": state[f"vggish_features.{n}.bias"],
        }
        for i, n in enumerate(CONVOLUTIONS)
    }
    for i in range(3):
        vggish[f"linear_{i}"] = _linear(state, f"vggish_embeddings.{2 * i}")
    vggish["linear_0"]["dense"]["kernel"] = _channel_last(
        vggish["linear_0"]["dense"]["kernel"], (audio.channels[-1], *audio.image)
    )
    params = {"time_code": state["encTA"], "audio_code": state["encA"], "vggish": vggish}
    if "temporal_dropA.embedding" in state:
        params["dropped_step"] = state["temporal_dropA.embedding"]
    return params


def _channel_last(
    kernel: Float[np.ndarray, "flat hidden"], image: tuple[int, int, int]
) -> Float[np.ndarray, "flat hidden"]:
    """Published images are flattened (channel, frame, mel), ours (frame, mel, channel)."""
    return kernel.reshape(*image, -1).transpose(1, 2, 0, 3).reshape(kernel.shape)


def _attention(state: State, name: str, heads: int) -> Params:
    weights = np.split(state[f"{name}.in_proj_weight"], 3)
    biases = np.split(state[f"{name}.in_proj_bias"], 3)
    dim = weights[0].shape[1]
    params: Params = {
        part: {"kernel": w.T.reshape(dim, heads, -1), "bias": b.reshape(heads, -1)}
        for part, w, b in zip(("query", "key", "value"), weights, biases, strict=True)
    }
    out = state[f"{name}.out_proj.weight"].T.reshape(heads, -1, dim)
    params["out"] = {"kernel": out, "bias": state[f"{name}.out_proj.bias"]}
    return params


def _feed_forward(state: State, name: str) -> Params:
    return {
        "hidden": _linear(state, f"{name}.linear1"),
        "output": _linear(state, f"{name}.linear2"),
    }


def _encoder_layer(state: State, name: str, heads: int) -> Params:
    return {
        "self_attention": _attention(state, f"{name}.self_attn", heads),
        "residual_0": _norm(state, f"{name}.norm1"),
        "feed_forward": _feed_forward(state, name),
        "residual_1": _norm(state, f"{name}.norm2"),
    }


def _decoder_layer(state: State, name: str, heads: int) -> Params:
    return {
        "self_attention": _attention(state, f"{name}.self_attn", heads),
        "residual_0": _norm(state, f"{name}.norm1"),
        "cross_attention": _attention(state, f"{name}.multihead_attn", heads),
        "residual_1": _norm(state, f"{name}.norm2"),
        "feed_forward": _feed_forward(state, name),
        "residual_2": _norm(state, f"{name}.norm3"),
    }


def _plain_head(state: State, name: str) -> Params:
    return {"hidden": _linear(state, f"{name}.1"), "output": _linear(state, f"{name}.4")}


def _uncertainty_head(state: State) -> Params:
    return {
        "shared_0": _linear(state, "displ_head.shared_head.1"),
        "shared_1": _linear(state, "displ_head.shared_head.4"),
        "mean": _linear(state, "displ_head.mean_head.1"),
        "log_variance": _linear(state, "displ_head.logvar_head.1"),
    }
