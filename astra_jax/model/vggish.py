"""The audio branch: VGGish over segments of the log-mel spectrogram, trained along."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from astra_jax.model.config import ModelConfig, VGGishConfig
from astra_jax.model.convolution import Convolution
from astra_jax.model.embeddings import augment, hide_absent
from astra_jax.model.layers import (
    Linear,
    code_init,
    step_times,
    unit_uniform,
)
from astra_jax.model.pooling import Images

# Convolutions in each of the four blocks; a pooling closes a block.
_BLOCKS = ((0,), (1,), (2, 3), (4, 5))


def _block(vggish: "VGGish", x: Images, block: tuple[int, ...]) -> Images:
    """The convolutions of a block and its pooling, of which `vggish` is the parent."""
    for i in block:
        features, dtype = vggish.audio.channels[i], vggish.config.compute_dtype
        x = Convolution(features, i == block[-1], dtype, name=f"conv_{i}")(x)
    return x


class VGGish(nn.Module):
    """A segment of 0.96 s to one vector: six convolutions, four poolings, three linears.

    The published checkpoints flatten channel-major; ours is channel-last, and
    `torch_import` permutes the first linear's columns.
    """

    config: ModelConfig
    audio: VGGishConfig

    @nn.compact
    def __call__(
        self, images: Float[Array, "clip segment frame mel"]
    ) -> Float[Array, "clip segment dim"]:
        """Embeds log-mel images (decibels, unscaled)."""
        cfg, audio = self.config, self.audio
        x = images[..., None].astype(cfg.compute_dtype)
        convolve = nn.remat(_block, static_argnums=(2,)) if cfg.remat else _block
        for block in _BLOCKS:
            x = convolve(self, x, block)
        x = x.reshape(*x.shape[:2], -1)
        x = nn.relu(Linear(audio.hidden, cfg.compute_dtype, name="linear_0")(x))
        x = nn.relu(Linear(audio.hidden, cfg.compute_dtype, name="linear_1")(x))
        return nn.relu(Linear(cfg.dim, cfg.compute_dtype, name="linear_2")(x))


class AudioEmbedding(nn.Module):
    """The audio tokens of a clip: one a segment, plus a time code and the audio code."""

    config: ModelConfig
    audio: VGGishConfig

    def setup(self) -> None:
        cfg, audio = self.config, self.audio
        self.dropped_step = (
            self.param("dropped_step", unit_uniform, (audio.mels,))
            if cfg.temporal_dropout > 0
            else None
        )
        covered = audio.segments * audio.segment_frames / audio.frames
        times = step_times(audio.segments, cfg.positions, covered)
        self.time_code = self.param(
            "time_code", code_init(cfg.codes, times), (audio.segments, cfg.dim)
        )
        self.audio_code = self.param("audio_code", unit_uniform, (cfg.dim,))
        self.vggish = VGGish(cfg, audio)

    def project(
        self, segments: Float[Array, "clip segment frame mel"]
    ) -> Float[Array, "clip segment dim"]:
        """The projected segments: each on its own, so any number of segments fits."""
        return self.vggish(segments)

    def code(self, embeddings: Float[Array, "clip segment dim"]) -> Float[Array, "clip token dim"]:
        """Adds the codes."""
        codes = self.time_code + self.audio_code
        return embeddings + codes.astype(embeddings.dtype)

    def __call__(
        self,
        log_mel: Float[Array, "clip frame mel"],
        present: Bool[Array, "clip frame"] | None,
        train: bool = False,
    ) -> tuple[Float[Array, "clip token dim"], Bool[Array, "clip token"] | None]:
        """Tokens of the whole segments (a rest of frames is unused); augmented when `train`.

        A segment is there where all its frames are.
        """
        audio = self.audio
        if train:
            key = self.make_rng("augment")
            log_mel, present = augment(key, log_mel, present, self.dropped_step, self.config)
        shape = (log_mel.shape[0], audio.segments, audio.segment_frames)
        used = audio.segments * audio.segment_frames
        if present is not None:
            present = jnp.all(present[:, :used].reshape(shape), axis=2)
        segments = hide_absent(log_mel[:, :used].reshape(*shape, audio.mels), present)
        return self.code(self.project(segments)), present
