"""From the rows of a feature source to tokens; temporal dropout and temporal switch."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int, Key, Shaped

from astra_jax.model.config import ModelConfig, SourceShape
from astra_jax.model.dropout import Dropout
from astra_jax.model.layers import Linear, code_init, step_times, unit_uniform


def temporal_dropout(
    key: Key[Array, ""],
    steps: Float[Array, "clip step column"],
    replacement: Float[Array, " column"],
    rate: float,
) -> Float[Array, "clip step column"]:
    """Replaces each time step by the learned vector with probability `rate` (section 3.4).

    Differs from the published implementation: every clip draws its own mask.
    """
    dropped = jax.random.bernoulli(key, np.float32(rate), steps.shape[:2])
    return jnp.where(dropped[..., None], replacement.astype(steps.dtype), steps)


def temporal_switch_order(
    key: Key[Array, ""], clips: int, steps: int, rate: float
) -> Int[Array, "{clips} {steps}"]:
    """The order of time steps after temporal switch (section 3.4).

    A walk from left to right: at step i, swap (i, i+1) with probability `rate` and go on at
    i+2, else go on at i+1. With one draw per step in advance, i is swapped where its draw
    says so and i-1 was not swapped: every other step of a run of positive draws.

    Differs from the published implementation: every clip draws its own swaps, and they do
    not overlap, so no step is lost or doubled.
    """
    draws = jax.random.bernoulli(key, np.float32(rate), (clips, steps - 1))
    index = jnp.arange(steps - 1)
    last_miss = jax.lax.cummax(jnp.where(draws, -1, index), axis=1)
    swaps = (draws & ((index - last_miss) % 2 == 1)).astype(jnp.int32)
    ahead = jnp.pad(swaps, ((0, 0), (0, 1)))
    back = jnp.pad(swaps, ((0, 0), (1, 0)))
    return jnp.arange(steps) + ahead - back


def augment(
    key: Key[Array, ""],
    steps: Float[Array, "clip step column"],
    present: Bool[Array, "clip step"] | None,
    dropped_step: Float[Array, " column"] | None,
    config: ModelConfig,
) -> tuple[Float[Array, "clip step column"], Bool[Array, "clip step"] | None]:
    """Temporal switch, then temporal dropout, of raw inputs.

    `dropped_step` is the learned vector, None where temporal dropout is off. A masked step
    stays masked where it goes. Which steps are dropped is drawn independently of where they lie,
    so the order makes no difference, and no gradient has to find its way back through the switch.
    """
    dropout_key, switch_key = jax.random.split(key)
    clips, count, _ = steps.shape
    if config.temporal_switch > 0 and count > 1:
        order = temporal_switch_order(switch_key, clips, count, config.temporal_switch)
        steps = _reorder(steps, order)
        present = None if present is None else _reorder(present, order)
    if dropped_step is not None:
        steps = temporal_dropout(dropout_key, steps, dropped_step, config.temporal_dropout)
    return steps, present


def _reorder(
    array: Shaped[Array, "clip step *column"], order: Int[Array, "clip step"]
) -> Shaped[Array, "clip step *column"]:
    order = order.reshape(*order.shape, *[1] * (array.ndim - 2))
    return jnp.take_along_axis(array, order, axis=1, mode="promise_in_bounds")


def hide_absent(
    steps: Float[Array, "clip step *column"], present: Bool[Array, "clip step"] | None
) -> Float[Array, "clip step *column"]:
    """Zeros where a step is not there; without a mask all are.

    Attention gives an absent step a weight of 0, but 0 times infinity is NaN: forwards, and in
    the gradients of all that saw the step.
    """
    if present is None:
        return steps
    return jnp.where(present.reshape(*present.shape, *[1] * (steps.ndim - 2)), steps, 0.0)


class FeatureProjection(nn.Module):
    """The pointwise network of one embedding: width to width to dim (section 3.1)."""

    config: ModelConfig

    @nn.compact
    def __call__(
        self, x: Float[Array, "clip row column"], train: bool
    ) -> Float[Array, "clip row dim"]:
        """Projects each row on its own."""
        cfg = self.config
        drop = Dropout(cfg.embedding_dropout)
        x = nn.relu(Linear(x.shape[-1], cfg.compute_dtype, name="hidden")(drop(x, train)))
        return nn.relu(Linear(cfg.dim, cfg.compute_dtype, name="output")(drop(x, train)))


class SourceEmbedding(nn.Module):
    """The tokens of one source: projections plus a time code and an embedding code."""

    config: ModelConfig
    source: SourceShape

    def setup(self) -> None:
        cfg, source = self.config, self.source
        self.dropped_step = (
            self.param("dropped_step", unit_uniform, (source.width,))
            if cfg.temporal_dropout > 0
            else None
        )
        times = step_times(source.rows, cfg.positions)
        self.time_code = self.param(
            "time_code", code_init(cfg.codes, times), (source.rows, cfg.dim)
        )
        self.embedding_code = self.param(
            "embedding_code", unit_uniform, (len(source.widths), cfg.dim)
        )
        self.projections = [
            FeatureProjection(cfg, name=f"projection_{i}") for i in range(len(source.widths))
        ]

    def project(
        self, rows: Float[Array, "clip row column"], train: bool = False
    ) -> Float[Array, "clip row embedding dim"]:
        """The projected embeddings of every row: pointwise in time, so any number of rows fits."""
        embeddings, start = [], 0
        for projection, width in zip(self.projections, self.source.widths, strict=True):
            embeddings.append(projection(rows[..., start : start + width], train))
            start += width
        return jnp.stack(embeddings, axis=2)

    def code(
        self, embeddings: Float[Array, "clip row embedding dim"]
    ) -> Float[Array, "clip token dim"]:
        """Adds the codes; tokens are ordered time-major, a row's embeddings side by side."""
        codes = self.time_code[:, None] + self.embedding_code[None]
        tokens = embeddings + codes.astype(embeddings.dtype)
        return tokens.reshape(tokens.shape[0], -1, tokens.shape[-1])

    def __call__(
        self,
        rows: Float[Array, "clip row column"],
        present: Bool[Array, "clip row"] | None,
        train: bool = False,
    ) -> tuple[Float[Array, "clip token dim"], Bool[Array, "clip token"] | None]:
        """Tokens of the rows and which of them are there; augmented when `train`."""
        if train:
            key = self.make_rng("augment")
            rows, present = augment(key, rows, present, self.dropped_step, self.config)
        tokens = self.code(self.project(hide_absent(rows, present), train))
        if present is not None:
            present = jnp.repeat(present, len(self.source.widths), axis=1)
        return tokens, present
