"""Our parameters as the state dict of the PyTorch twin: the way back of `torch_import`."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from astra_jax.model import ModelConfig

Params = dict[str, Any]
Arrays = dict[str, Float[np.ndarray, "..."]]

# Where the convolutions stand among VGGish's activations and poolings.
_CONVOLUTIONS = (0, 3, 6, 8, 11, 13)


def to_state_dict(params: Params, config: ModelConfig) -> dict[str, torch.Tensor]:
    """What a `TorchASTRA` of `config`'s sizes loads to be `ASTRA(config)` with `params`."""
    source, decoder = params["source_0"], params["decoder"]
    arrays: Arrays = {
        "encTB": source["time_code"],
        "encFB": source["embedding_code"],
        "temporal_dropB.embedding": source["dropped_step"],
        "queries": decoder["queries"],
        **_plain_head(params["classification_head"], "clas_head.head"),
    }
    for i in range(len(config.sources[0].widths)):
        arrays |= _plain_head(source[f"projection_{i}"], f"baidu_LL.{i}.head")
    if config.audio is not None:
        arrays |= _audio(params["audio"], config.audio.image)
    for i in range(config.encoder_layers):
        arrays |= _layer(params["encoder"][f"layer_{i}"], f"Tencoder.layers.{i}")
    for i in range(config.decoder_layers):
        arrays |= _layer(decoder[f"layer_{i}"], f"Tdecoder.layers.{i}")
    displacement = params["displacement_head"]
    if config.uncertainty:
        for ours, theirs in (
            ("shared_0", "shared_head.1"),
            ("shared_1", "shared_head.4"),
            ("mean", "mean_head.1"),
            ("log_variance", "logvar_head.1"),
        ):
            arrays |= _linear(displacement[ours], f"displ_head.{theirs}")
    else:
        arrays |= _plain_head(displacement, "displ_head.head")
    return {name: torch.tensor(np.asarray(array)) for name, array in arrays.items()}


def _linear(params: Params, name: str) -> Arrays:
    dense = params["dense"]
    return {f"{name}.weight": np.asarray(dense["kernel"]).T, f"{name}.bias": dense["bias"]}


def _plain_head(params: Params, name: str) -> Arrays:
    return _linear(params["hidden"], f"{name}.1") | _linear(params["output"], f"{name}.4")


def _audio(params: Params, image: tuple[int, int]) -> Arrays:
    vggish = params["vggish"]
    arrays: Arrays = {
        "encTA": params["time_code"],
        "encA": params["audio_code"],
        "temporal_dropA.embedding": params["dropped_step"],
    }
    for i, place in enumerate(_CONVOLUTIONS):
        convolution = vggish[f"conv_{i}"]
        kernel = np.asarray(convolution["kernel"]).transpose(3, 2, 0, 1)
        arrays[f"vggish_features.{place}.weight"] = kernel
        arrays[f"vggish_features.{place}.bias"] = convolution["bias"]
    for i in range(3):
        arrays |= _linear(vggish[f"linear_{i}"], f"vggish_embeddings.{2 * i}")
    # Ours flattens (frame, mel, channel), the published model (channel, frame, mel).
    first = "vggish_embeddings.0.weight"
    columns = arrays[first].reshape(-1, *image, kernel.shape[0])
    arrays[first] = columns.transpose(0, 3, 1, 2).reshape(arrays[first].shape)
    return arrays


def _layer(params: Params, name: str) -> Arrays:
    """An encoder's or a decoder's layer: attentions and feed-forward, a norm behind each."""
    arrays = _attention(params["self_attention"], f"{name}.self_attn")
    if "cross_attention" in params:
        arrays |= _attention(params["cross_attention"], f"{name}.multihead_attn")
    arrays |= _linear(params["feed_forward"]["hidden"], f"{name}.linear1")
    arrays |= _linear(params["feed_forward"]["output"], f"{name}.linear2")
    for i in range(sum(key.startswith("residual") for key in params)):
        norm = params[f"residual_{i}"]["norm"]
        arrays[f"{name}.norm{i + 1}.weight"] = norm["scale"]
        arrays[f"{name}.norm{i + 1}.bias"] = norm["bias"]
    return arrays


def _attention(params: Params, name: str) -> Arrays:
    parts = [params[part] for part in ("query", "key", "value")]
    dim = params["out"]["bias"].shape[0]
    kernels = [np.asarray(part["kernel"]).reshape(dim, dim).T for part in parts]
    return {
        f"{name}.in_proj_weight": np.concatenate(kernels),
        f"{name}.in_proj_bias": np.concatenate([np.ravel(part["bias"]) for part in parts]),
        f"{name}.out_proj.weight": np.asarray(params["out"]["kernel"]).reshape(dim, dim).T,
        f"{name}.out_proj.bias": params["out"]["bias"],
    }
