"""The hierarchical transformer encoder and the decoder with learned queries."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from astra_jax.model.attention import Attention
from astra_jax.model.config import ModelConfig
from astra_jax.model.dropout import Dropout
from astra_jax.model.layers import Linear, code_init, layer_norm, step_times


def segments_of_layer(layer: int, layers: int) -> int:
    """Segments into which encoder layer `layer` (from 0) of `layers` cuts a clip (section 3.2)."""
    return 2 ** (layers - 1 - layer)


def segment_slots(
    streams: tuple[int, ...], segments: int
) -> tuple[
    Int[np.ndarray, "segment slot"], Bool[np.ndarray, "segment slot"], Int[np.ndarray, " token"]
]:
    """Cuts each stream of tokens into segments on its own and lays segment k of all side by side.

    Args:
        streams: tokens of each source (and of the audio), as they lie one after the other.
        segments: how many; each holds `floor(n / segments)` tokens of a stream of n, and the
            last one the remainder as well (cuts may fall inside a second).

    Returns:
        The token in each slot, whether the slot is in use (segments of unequal length are
        filled up with token 0), and the flat slot of each token.
    """
    starts = np.cumsum([0, *streams[:-1]])
    members: list[list[int]] = []
    for k in range(segments):
        own: list[int] = []
        for start, tokens in zip(starts, streams, strict=True):
            size = tokens // segments
            end = tokens if k == segments - 1 else (k + 1) * size
            own.extend(range(start + k * size, start + end))
        members.append(own)
    longest = max(len(own) for own in members)
    index = np.array([own + [0] * (longest - len(own)) for own in members], np.int32)
    used = np.array([[True] * len(own) + [False] * (longest - len(own)) for own in members])
    slot = np.empty(sum(streams), np.int32)
    slot[index[used]] = np.flatnonzero(used)
    return index, used, slot


class FeedForward(nn.Module):
    """Two linears with ReLU and dropout between."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x: Float[Array, "*batch dim"], train: bool) -> Float[Array, "*batch dim"]:
        """Applies the network to each token."""
        cfg = self.config
        x = nn.relu(Linear(cfg.feed_forward, cfg.compute_dtype, name="hidden")(x))
        x = Dropout(cfg.dropout)(x, train)
        return Linear(cfg.dim, cfg.compute_dtype, name="output")(x)


class _Residual(nn.Module):
    """A sublayer with dropout and its residual: LayerNorm comes after both, or before them."""

    config: ModelConfig

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "*batch dim"],
        sublayer: Callable[[Float[Array, "*batch dim"]], Float[Array, "*batch dim"]],
        train: bool,
    ) -> Float[Array, "*batch dim"]:
        drop = Dropout(self.config.dropout)
        norm = layer_norm(self.config.compute_dtype, "norm")
        if self.config.norm == "pre":
            return x + drop(sublayer(norm(x)), train)
        return norm(x + drop(sublayer(x), train))


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward."""

    config: ModelConfig

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "*batch token dim"],
        present: Bool[Array, "*batch token"] | None,
        train: bool,
    ) -> Float[Array, "*batch token dim"]:
        """Tokens attend to those of their own batch entry that are there."""
        cfg = self.config
        sizes = cfg.dim, cfg.heads, cfg.dropout, cfg.compute_dtype
        attend = Attention(*sizes, name="self_attention")
        feed_forward = FeedForward(cfg, name="feed_forward")
        x = _Residual(cfg, name="residual_0")(x, lambda y: attend(y, None, present, train), train)
        return _Residual(cfg, name="residual_1")(x, lambda y: feed_forward(y, train), train)


class Encoder(nn.Module):
    """Encoder layers over segments that double in length from layer to layer (section 3.2).

    Segments are batched, not masked out: a layer costs what its segments cost. With
    `hierarchical` off every layer sees the whole clip (the vanilla encoder of M0).

    Differs from the published implementation: each layer draws its own initial values
    (there, all layers start as copies of one).
    """

    config: ModelConfig

    @nn.compact
    def __call__(
        self,
        streams: tuple[Float[Array, "clip _ dim"], ...],
        present: Bool[Array, "clip token"] | None,
        train: bool = False,
    ) -> Float[Array, "clip token dim"]:
        """Encodes the streams' tokens, returned one after the other."""
        cfg = self.config
        make_layer = nn.remat(EncoderLayer, static_argnums=(3,)) if cfg.remat else EncoderLayer
        lengths = tuple(stream.shape[1] for stream in streams)
        x = jnp.concatenate(streams, axis=1)
        for i in range(cfg.encoder_layers):
            layer = make_layer(cfg, name=f"layer_{i}")
            segments = segments_of_layer(i, cfg.encoder_layers) if cfg.hierarchical else 1
            if segments == 1:
                x = layer(x, present, train)
                continue
            index, used, slot = segment_slots(lengths, segments)
            mask: Array | None = None
            if present is not None:
                mask = present[:, index] & used
            elif not used.all():
                mask = jnp.broadcast_to(used, (x.shape[0], *used.shape))
            y = layer(x[:, index], mask, train)
            x = y.reshape(y.shape[0], -1, y.shape[-1])[:, slot]
        return layer_norm(cfg.compute_dtype, "norm")(x) if cfg.norm == "pre" else x


class DecoderLayer(nn.Module):
    """Self-attention of queries, attention to the encoder's tokens, feed-forward."""

    config: ModelConfig

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "_ position dim"],
        memory: Float[Array, "clip token dim"],
        present: Bool[Array, "clip token"] | None,
        train: bool,
    ) -> Float[Array, "clip position dim"]:
        """Queries attend to each other and to the tokens that are there.

        Queries that are the same for all clips may be given once.
        """
        cfg = self.config
        sizes = cfg.dim, cfg.heads, cfg.dropout, cfg.compute_dtype
        attend = Attention(*sizes, name="self_attention")
        look = Attention(*sizes, name="cross_attention")
        feed_forward = FeedForward(cfg, name="feed_forward")
        x = _Residual(cfg, name="residual_0")(x, lambda y: attend(y, train=train), train)
        x = jnp.broadcast_to(x, (memory.shape[0], *x.shape[1:]))
        x = _Residual(cfg, name="residual_1")(x, lambda y: look(y, memory, present, train), train)
        return _Residual(cfg, name="residual_2")(x, lambda y: feed_forward(y, train), train)


class Decoder(nn.Module):
    """Learned queries, one an output position, through the decoder layers (section 3.2)."""

    config: ModelConfig

    @nn.compact
    def __call__(
        self,
        memory: Float[Array, "clip token dim"],
        present: Bool[Array, "clip token"] | None,
        train: bool = False,
    ) -> Float[Array, "clip position dim"]:
        """The evolved queries of each clip."""
        cfg = self.config
        make_layer = nn.remat(DecoderLayer, static_argnums=(4,)) if cfg.remat else DecoderLayer
        times = step_times(cfg.positions, cfg.positions)
        queries = self.param("queries", code_init(cfg.codes, times), (cfg.positions, cfg.dim))
        x = queries[None].astype(memory.dtype)
        if train:  # dropout makes a clip's queries its own from the first layer on
            x = jnp.broadcast_to(x, (memory.shape[0], *queries.shape))
        for i in range(cfg.decoder_layers):
            x = make_layer(cfg, name=f"layer_{i}")(x, memory, present, train)
        return layer_norm(cfg.compute_dtype, "norm")(x) if cfg.norm == "pre" else x
