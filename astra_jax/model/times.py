"""When a token is, and two ways to let the network know without learning it from codes."""

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from astra_jax.model.config import ModelConfig
from astra_jax.model.layers import Linear, clock


def streams(config: ModelConfig) -> list[tuple[int, int, float]]:
    """Of every stream of tokens: time steps, tokens a step, the share of the clip they cover."""
    found = [(source.rows, len(source.widths), 1.0) for source in config.sources]
    if (audio := config.audio) is not None:
        covered = audio.segments * audio.segment_frames / audio.frames
        found.append((audio.segments, 1, covered))
    return found


def token_times(config: ModelConfig) -> Float[np.ndarray, " token"]:
    """When each token begins, in output positions, streams one behind the other."""
    return np.concatenate(
        [
            np.repeat(clock(steps, config.positions, covered), tokens)
            for steps, tokens, covered in streams(config)
        ]
    )


def step_of_position(
    steps: int, positions: int, covered: float = 1.0
) -> Int[np.ndarray, " position"]:
    """The time step in which each output position lies (the last one, behind them all)."""
    starts = clock(steps, positions, covered)
    return np.searchsorted(starts, np.arange(positions), side="right") - 1


class TimeBias(nn.Module):
    """What a head's attention logits gain by the distance in time, learned for each distance.

    Starts falling linearly, at another slope in each head (from 1/4 to 1/256 a position, as in
    "Train Short, Test Long", Press et al. 2022): near tokens count before anything is learned,
    and what is learned of one moment holds for all, as in a convolution.
    """

    config: ModelConfig

    @nn.compact
    def __call__(
        self, distance: Int[np.ndarray, "*segment query key"]
    ) -> Float[Array, "*segment head query key"]:
        """The bias for every pair."""
        cfg = self.config
        reach = cfg.positions
        slopes = 2.0 ** -np.linspace(2, 8, cfg.heads)

        def falling(key: Array, shape: tuple[int, ...]) -> Array:
            del key, shape
            return jnp.asarray(-slopes[:, None] * np.abs(np.arange(-reach, reach + 1)), jnp.float32)

        table = self.param("by_distance", falling, (cfg.heads, 2 * reach + 1))
        # head first, then into its place before query and key.
        bias = table[:, distance + reach]
        return jnp.moveaxis(bias, 0, -3)


class OwnTime(nn.Module):
    """Gives each output position the tokens of its own time, through a linear map a stream.

    A position takes those of the time step it lies in; absent ones give nothing.
    """

    config: ModelConfig

    @nn.compact
    def __call__(
        self,
        tokens: Float[Array, "clip token dim"],
        present: Bool[Array, "clip token"] | None,
    ) -> Float[Array, "clip position dim"]:
        """What each position finds at its time."""
        cfg = self.config
        if present is not None:
            tokens = jnp.where(present[..., None], tokens, 0)
        total, first = 0.0, 0
        for i, (steps, width, covered) in enumerate(streams(cfg)):
            own = tokens[:, first : first + steps * width]
            first += steps * width
            own = own.reshape(own.shape[0], steps, width * own.shape[-1])
            step = step_of_position(steps, cfg.positions, covered)
            total += Linear(cfg.dim, cfg.compute_dtype, name=f"stream_{i}")(own)[:, step]
        return total


class Shortcut(nn.Module):
    """From the raw columns around a position straight to its logits, one linear map a source.

    What a column says of a class needs no hundred examples to be learned then. Starts at zero.
    """

    config: ModelConfig

    @nn.compact
    def __call__(
        self, features: tuple[Float[Array, "clip row column"], ...]
    ) -> Float[Array, "clip position class"]:
        """What each source adds to the logits; absent rows are zeros and add nothing."""
        cfg = self.config
        total = 0.0
        for i, (rows, source) in enumerate(zip(features, cfg.sources, strict=True)):
            reach = round(cfg.shortcut_reach * source.rows / cfg.positions)
            logits = nn.Conv(
                cfg.classes + 1,
                (2 * reach + 1,),
                use_bias=False,
                kernel_init=nn.initializers.zeros,
                name=f"source_{i}",
            )(rows)
            total += logits[:, step_of_position(source.rows, cfg.positions)]
        return total
