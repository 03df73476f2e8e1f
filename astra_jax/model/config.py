"""The sizes and rates of a model: everything `ASTRA` needs to know."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, get_args

import jax.numpy as jnp

from astra_jax.data.sources import DataSpec
from astra_jax.data.targets import ClipConfig
from astra_jax.data.time import Exact, steps_of
from astra_jax.errors import UserError

Codes = Literal["uniform", "sinusoidal"]
Norm = Literal["post", "pre"]
Dtype = Literal["float32", "bfloat16", "float32_highest"]

_HIGHEST = "_highest"


@dataclasses.dataclass(frozen=True)
class SourceShape:
    """One source of precomputed features: its rows in a clip and the embeddings side by side.

    The shortcut, where there is one, sees its first `shortcut_columns` (None: all).
    """

    rows: int
    widths: tuple[int, ...]
    shortcut_columns: int | None = None

    @property
    def width(self) -> int:
        """Columns of a row."""
        return sum(self.widths)


@dataclasses.dataclass(frozen=True)
class VGGishConfig:
    """The VGGish branch. `channels` are those of the six convolutions, two in blocks 3 and 4."""

    frames: int
    mels: int = 128
    segment_frames: int = 96
    channels: tuple[int, ...] = (64, 128, 256, 256, 512, 512)
    hidden: int = 4096

    @property
    def segments(self) -> int:
        """Whole segments in a clip: 52 of 0.96 s in 50 s (section 3.1)."""
        return self.frames // self.segment_frames

    @property
    def image(self) -> tuple[int, int]:
        """Frames and mels of a segment after the four poolings."""
        return self.segment_frames // 16, self.mels // 16


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """ASTRA's sizes; the defaults are the paper's (section 4.3).

    Differs from the published implementation: `hierarchical` cuts layer i of n into
    `2**(n - i)` segments as the paper says, for any n (the implementation's 4, 2, 1, 1, ...
    is the same for three layers).

    `shortcut_reach` and `shortcut_unit`, the distances of the shortcut's farthest and nearest
    knots, are in output positions; a reach of None means no shortcut.

    With `remat` the backward pass computes the activations inside encoder layers, decoder layers
    and VGGish's blocks again instead of keeping them; parameters and results stay the same.
    """

    sources: tuple[SourceShape, ...]
    positions: int
    audio: VGGishConfig | None = None
    num_classes: int = 17
    dim: int = 512
    heads: int = 8
    feed_forward: int = 2048
    encoder_layers: int = 3
    decoder_layers: int = 3
    hierarchical: bool = True
    uncertainty: bool = True
    dropout: float = 0.1
    embedding_dropout: float = 0.4
    head_dropout: float = 0.4
    temporal_dropout: float = 0.5
    temporal_switch: float = 0.3
    codes: Codes = "uniform"
    class_prior: float | None = None
    aligned_attention: bool = False
    norm: Norm = "post"
    shortcut_reach: float | None = None
    shortcut_unit: float = 2.0
    dtype: Dtype = "float32"
    remat: bool = False

    def __post_init__(self) -> None:
        if self.dim % self.heads:
            raise UserError(
                f"config.model: dim {self.dim} is not divisible by heads {self.heads}: "
                "choose a dim that is a multiple of heads"
            )
        for key, kinds in (("codes", Codes), ("norm", Norm), ("dtype", Dtype)):
            if (value := getattr(self, key)) not in get_args(kinds):
                raise UserError(
                    f"config.model.{key}: {value!r} is none of {', '.join(get_args(kinds))}"
                )
        if self.audio is not None and (0 in self.audio.image or self.audio.segments < 1):
            raise UserError(
                f"config.model.audio: segments of {self.audio.segment_frames} frames and "
                f"{self.audio.mels} mels in clips of {self.audio.frames} frames don't fit VGGish: "
                "it needs at least 16 frames and 16 mels, and one whole segment a clip"
            )
        seen = [s.width if s.shortcut_columns is None else s.shortcut_columns for s in self.sources]
        if self.shortcut_reach is not None and not sum(seen):
            raise UserError(
                "config.model.shortcut_seconds: no source has columns for the shortcut to see: set "
                "it to None, or some source's shortcut_columns above 0, or add a clock"
            )
        segments = 2 ** (self.encoder_layers - 1)
        if self.hierarchical and segments > self.fewest_tokens:
            raise UserError(
                f"config.model.encoder_layers: {self.encoder_layers}, the first layer would cut "
                f"clips into {segments} segments, but a source or the audio has only "
                f"{self.fewest_tokens} tokens a clip: lower it, or set hierarchical to False"
            )

    @property
    def fewest_tokens(self) -> int:
        """Tokens of the source, or the audio, that gives a clip the fewest."""
        tokens = [source.rows * len(source.widths) for source in self.sources]
        return min(tokens + ([] if self.audio is None else [self.audio.segments]))

    @property
    def compute_dtype(self) -> jnp.dtype:
        """The type of activations and matrix products.

        Parameters, softmax and the last linear of each head stay float32.
        """
        return jnp.dtype(self.dtype.removesuffix(_HIGHEST))

    @property
    def highest_precision(self) -> bool:
        """Whether products are those of float32: GPU and TPU round what they multiply, unasked."""
        return self.dtype.endswith(_HIGHEST)

    @classmethod
    def from_config(
        cls,
        model: Mapping[str, Any],
        data: DataSpec,
        clip: ClipConfig,
        default_dtype: str = "float32",
    ) -> "ModelConfig":
        """Reads the config's section `model`; inputs and outputs are those of `data`, `clip`.

        `default_dtype` is used where `config.model.dtype` is None.
        """
        fields: dict[str, Any] = dict(model)
        audio_sizes = dict(fields.pop("audio"))
        audio_sizes.pop("init_from")  # no size: where weights start from (torch_import.vggish)
        sources = tuple(
            SourceShape(
                rows=_steps(clip.seconds, source.rows_per_second, source.pattern),
                widths=source.widths,
                shortcut_columns=source.shortcut_columns,
            )
            for source in data.sources
        )
        audio = None
        if data.audio is not None:
            audio_sizes["channels"] = tuple(audio_sizes["channels"])
            frames = _steps(clip.seconds, data.audio.frames_per_second, "data.audio")
            audio = VGGishConfig(frames=frames, mels=data.audio.mels, **audio_sizes)
        fields["dtype"] = fields["dtype"] or default_dtype
        reach = fields.pop("shortcut_seconds")
        fields["shortcut_reach"] = (
            # Farther than a clip is long there is nothing to see.
            None if reach is None else min(reach, clip.seconds) * clip.positions_per_second
        )
        fields["shortcut_unit"] = clip.positions_per_second
        return cls(
            sources=sources,
            audio=audio,
            positions=_steps(clip.seconds, clip.positions_per_second, "clip"),
            num_classes=len(data.classes),
            **fields,
        )


def _steps(seconds: float, rate: Exact, what: str) -> int:
    if not (steps := steps_of(seconds, rate)):
        raise UserError(
            f"config.clip.seconds: {seconds} s at {float(rate):g} a second ({what}) is less than "
            "half a step: choose longer clips"
        )
    return steps
