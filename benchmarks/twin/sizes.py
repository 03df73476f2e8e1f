"""The sizes and rates of the PyTorch twin."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the benchmark's PyTorch process imports no JAX
    from astra_jax.model import ModelConfig


@dataclasses.dataclass(frozen=True)
class AudioSizes:
    """The audio branch: whole segments a clip, frames and mels of each, VGGish's widths."""

    segments: int
    segment_frames: int
    mels: int
    channels: tuple[int, ...]
    hidden: int


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Sizes and rates of a twin; the names are those of `ModelConfig`."""

    rows: int
    widths: tuple[int, ...]
    audio: AudioSizes | None
    positions: int
    num_classes: int
    dim: int
    heads: int
    feed_forward: int
    encoder_layers: int
    decoder_layers: int
    uncertainty: bool
    dropout: float
    embedding_dropout: float
    head_dropout: float
    temporal_dropout: float
    temporal_switch: float

    @classmethod
    def of(cls, config: ModelConfig) -> Sizes:
        """Those of one of our models with one source, as far as PyTorch's can be alike."""
        (source,) = config.sources
        names = {field.name for field in dataclasses.fields(cls)} - {"rows", "widths", "audio"}
        audio = None
        if config.audio is not None:
            of_audio = (field.name for field in dataclasses.fields(AudioSizes))
            audio = AudioSizes(**{name: getattr(config.audio, name) for name in of_audio})
        return cls(
            rows=source.rows,
            widths=source.widths,
            audio=audio,
            **{name: getattr(config, name) for name in names},
        )

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Sizes:
        """What `dataclasses.asdict` and JSON made of sizes."""
        audio = content["audio"]
        if audio is not None:
            audio = AudioSizes(**audio | {"channels": tuple(audio["channels"])})
        return cls(**content | {"widths": tuple(content["widths"]), "audio": audio})
