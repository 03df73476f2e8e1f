"""Published checkpoints: the names and layouts of their state dicts to ours. Needs no torch."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from astra_jax.errors import UserError
from astra_jax.model.config import AudioConfig, ModelConfig, SourceConfig

State = Mapping[str, Shaped[np.ndarray, "..."]]
Params = dict[str, Any]

# The mixup queue is no part of the model.
_IGNORED = ("labelQ", "labelDQ", "featBQ", "featAQ")
_CONVOLUTIONS = (0, 3, 6, 8, 11, 13)


class _Reader:
    """Reads tensors by name, remembers which, and fails in one line on a missing one."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.used: set[str] = set(_IGNORED)

    def __contains__(self, name: str) -> bool:
        return name in self._state

    def __call__(self, name: str) -> Shaped[np.ndarray, "..."]:
        if name not in self._state:
            raise UserError(
                f"checkpoint: tensor {name!r} is missing: is this the state dict of an ASTRA "
                "checkpoint, and not of its optimiser or of another model?"
            )
        self.used.add(name)
        return np.asarray(self._state[name])

    def count(self, pattern: str) -> int:
        """How many of `pattern` with {} = 0, 1, ... there are."""
        n = 0
        while pattern.format(n) in self:
            n += 1
        return n

    def left_over(self) -> list[str]:
        """Names that nothing read."""
        return sorted(set(self._state) - self.used)


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
        vectors, off elsewhere) and the `params` of `ASTRA(config)`.

    Raises:
        UserError: a tensor is missing, or one is left over that no part of the model takes.
    """
    read = _Reader(state)
    config = _config(read, heads, hierarchical)
    params: Params = {"source_0": _source(read, config)}
    if config.audio is not None:
        params["audio"] = _audio(read, config.audio)
    params["encoder"] = {
        f"layer_{i}": _encoder_layer(read, f"Tencoder.layers.{i}", heads)
        for i in range(config.encoder_layers)
    }
    params["decoder"] = {
        f"layer_{i}": _decoder_layer(read, f"Tdecoder.layers.{i}", heads)
        for i in range(config.decoder_layers)
    }
    params["decoder"]["queries"] = read("queries")
    params["classification_head"] = _plain_head(read, "clas_head.head")
    params["displacement_head"] = (
        _uncertainty_head(read) if config.uncertainty else _plain_head(read, "displ_head.head")
    )
    if left_over := read.left_over():
        raise UserError(
            f"checkpoint: no part of the model takes {', '.join(left_over)}: "
            "is this an ASTRA checkpoint?"
        )
    return config, params


def _config(read: _Reader, heads: int, hierarchical: bool) -> ModelConfig:
    rows, dim = read("encTB").shape
    widths = tuple(
        read(f"baidu_LL.{i}.head.1.weight").shape[1]
        for i in range(read.count("baidu_LL.{}.head.1.weight"))
    )
    augmented = "temporal_dropB.embedding" in read
    positions = read("queries").shape[0]
    return ModelConfig(
        sources=(SourceConfig(rows, widths),),
        audio=_audio_config(read) if "encTA" in read else None,
        positions=positions,
        classes=read("clas_head.head.4.weight").shape[0] - 1,
        dim=dim,
        heads=heads,
        feed_forward=read("Tdecoder.layers.0.linear1.weight").shape[0],
        encoder_layers=read.count("Tencoder.layers.{}.linear1.weight"),
        decoder_layers=read.count("Tdecoder.layers.{}.linear1.weight"),
        hierarchical=hierarchical,
        uncertainty="displ_head.mean_head.1.weight" in read,
        temporal_dropout=0.5 if augmented else 0.0,
        temporal_switch=0.3 if augmented else 0.0,
    )


def _audio_config(read: _Reader) -> AudioConfig:
    channels = tuple(read(f"vggish_features.{i}.weight").shape[0] for i in _CONVOLUTIONS)
    hidden, flat = read("vggish_embeddings.0.weight").shape
    defaults = AudioConfig(frames=0)
    mels = flat // (channels[-1] * defaults.image[0]) * 16
    # The frames behind the last whole segment are unused, so a clip of whole segments serves.
    frames = read("encTA").shape[0] * defaults.segment_frames
    return AudioConfig(frames=frames, mels=mels, channels=channels, hidden=hidden)


def _kernel(read: _Reader, name: str) -> Params:
    return {"kernel": read(f"{name}.weight").T, "bias": read(f"{name}.bias")}


def _linear(read: _Reader, name: str) -> Params:
    return {"dense": _kernel(read, name)}


def _norm(read: _Reader, name: str) -> Params:
    return {"norm": {"scale": read(f"{name}.weight"), "bias": read(f"{name}.bias")}}


def _source(read: _Reader, config: ModelConfig) -> Params:
    params: Params = {"time_code": read("encTB"), "embedding_code": read("encFB")}
    for i in range(len(config.sources[0].widths)):
        params[f"projection_{i}"] = {
            "hidden": _linear(read, f"baidu_LL.{i}.head.1"),
            "output": _linear(read, f"baidu_LL.{i}.head.4"),
        }
    if config.temporal_dropout:
        params["dropped_step"] = read("temporal_dropB.embedding")
    return params


def _audio(read: _Reader, audio: AudioConfig) -> Params:
    vggish: Params = {
        f"conv_{i}": {
            "kernel": read(f"vggish_features.{n}.weight").transpose(2, 3, 1, 0),
            "bias": read(f"vggish_features.{n}.bias"),
        }
        for i, n in enumerate(_CONVOLUTIONS)
    }
    for i in range(3):
        vggish[f"linear_{i}"] = _linear(read, f"vggish_embeddings.{2 * i}")
    vggish["linear_0"]["dense"]["kernel"] = _channel_last(
        vggish["linear_0"]["dense"]["kernel"], (audio.channels[-1], *audio.image)
    )
    params = {"time_code": read("encTA"), "audio_code": read("encA"), "vggish": vggish}
    if "temporal_dropA.embedding" in read:
        params["dropped_step"] = read("temporal_dropA.embedding")
    return params


def _channel_last(
    kernel: Float[np.ndarray, "flat hidden"], image: tuple[int, int, int]
) -> Float[np.ndarray, "flat hidden"]:
    """Published images are flattened (channel, frame, mel), ours (frame, mel, channel)."""
    return kernel.reshape(*image, -1).transpose(1, 2, 0, 3).reshape(kernel.shape)


def _attention(read: _Reader, name: str, heads: int) -> Params:
    weights = np.split(read(f"{name}.in_proj_weight"), 3)
    biases = np.split(read(f"{name}.in_proj_bias"), 3)
    dim = weights[0].shape[1]
    params: Params = {
        part: {"kernel": w.T.reshape(dim, heads, -1), "bias": b.reshape(heads, -1)}
        for part, w, b in zip(("query", "key", "value"), weights, biases, strict=True)
    }
    out = read(f"{name}.out_proj.weight").T.reshape(heads, -1, dim)
    params["out"] = {"kernel": out, "bias": read(f"{name}.out_proj.bias")}
    return params


def _feed_forward(read: _Reader, name: str) -> Params:
    return {
        "hidden": _linear(read, f"{name}.linear1"),
        "output": _linear(read, f"{name}.linear2"),
    }


def _encoder_layer(read: _Reader, name: str, heads: int) -> Params:
    return {
        "self_attention": _attention(read, f"{name}.self_attn", heads),
        "residual_0": _norm(read, f"{name}.norm1"),
        "feed_forward": _feed_forward(read, name),
        "residual_1": _norm(read, f"{name}.norm2"),
    }


def _decoder_layer(read: _Reader, name: str, heads: int) -> Params:
    return {
        "self_attention": _attention(read, f"{name}.self_attn", heads),
        "residual_0": _norm(read, f"{name}.norm1"),
        "cross_attention": _attention(read, f"{name}.multihead_attn", heads),
        "residual_1": _norm(read, f"{name}.norm2"),
        "feed_forward": _feed_forward(read, name),
        "residual_2": _norm(read, f"{name}.norm3"),
    }


def _plain_head(read: _Reader, name: str) -> Params:
    return {"hidden": _linear(read, f"{name}.1"), "output": _linear(read, f"{name}.4")}


def _uncertainty_head(read: _Reader) -> Params:
    return {
        "shared_0": _linear(read, "displ_head.shared_head.1"),
        "shared_1": _linear(read, "displ_head.shared_head.4"),
        "mean": _linear(read, "displ_head.mean_head.1"),
        "log_variance": _linear(read, "displ_head.logvar_head.1"),
    }
