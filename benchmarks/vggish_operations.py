"""Seconds of VGGish's six convolutions, each with its ReLU and pooling: ours beside flax's.

Run:  python benchmarks/vggish_operations.py

On the audio of one clip (52 images) in float32, forward alone and with all gradients, on the device
that JAX takes (docs/performance.md). Ours and flax's take turns; medians of 5. In parentheses the
seconds of the processor, of all cores together: on a busy machine only they count.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from astra_jax.model.convolution import convolve

SEGMENTS = 52
LAYERS = (
    (96, 128, 1, 64, True),
    (48, 64, 64, 128, True),
    (24, 32, 128, 256, False),
    (24, 32, 256, 256, True),
    (12, 16, 256, 512, False),
    (12, 16, 512, 512, True),
)
"""Frames and mels of a convolution's images, channels in and out, whether a pooling follows."""

Images = Float[Array, "clip segment _ _ _"]


def of_flax(
    images: Images,
    kernel: Float[Array, "3 3 channel_in channel_out"],
    bias: Float[Array, " channel_out"],
    pooled: bool,
) -> Images:
    """The same by flax's three layers, as the published model has them."""
    convolution = nn.Conv(bias.size, (3, 3))
    flat = images.reshape(-1, *images.shape[2:])
    x = nn.relu(convolution.apply({"params": {"kernel": kernel, "bias": bias}}, flat))
    if pooled:
        x = nn.max_pool(x, (2, 2), (2, 2))
    return x.reshape(*images.shape[:2], *x.shape[1:])


def programs(layer: tuple[int, int, int, int, bool]) -> list[Callable[[], Any]]:
    """Compiled: ours forward, flax's forward, ours with gradients, flax's with gradients."""
    frames, mels, before, after, pooled = layer
    keys = jax.random.split(jax.random.key(0), 3)
    images = jax.random.normal(keys[0], (1, SEGMENTS, frames, mels, before))
    kernel = jax.random.normal(keys[1], (3, 3, before, after)) / jnp.sqrt(9 * before)
    args = images, kernel, jax.random.normal(keys[2], (after,))

    def gradients(function: Callable[..., Images]) -> Callable[..., Any]:
        return jax.grad(lambda *args: jnp.sum(function(*args, pooled) ** 2), argnums=(0, 1, 2))

    functions = [
        lambda *args: convolve(*args, pooled),
        lambda *args: of_flax(*args, pooled),
        gradients(convolve),
        gradients(of_flax),
    ]
    compiled = [jax.jit(function).lower(*args).compile() for function in functions]
    return [lambda program=program: program(*args) for program in compiled]


def seconds(function: Callable[[], Any]) -> tuple[float, float]:
    """Of a clock on the wall, and of the processor."""
    wall, processor = time.perf_counter(), time.process_time()
    jax.block_until_ready(function())
    return time.perf_counter() - wall, time.process_time() - processor


def main() -> None:
    """Prints a line of a Markdown table a convolution."""
    for layer in LAYERS:
        frames, mels, before, after, pooled = layer
        functions = programs(layer)
        rounds = [[seconds(function) for function in functions] for _ in range(6)][1:]
        cells = [
            "{:.2f} s ({:.2f})".format(*map(statistics.median, zip(*taken, strict=True)))
            for taken in zip(*rounds, strict=True)
        ]
        name = f"{frames} x {mels}, {before} to {after}{', pooled' if pooled else ''}"
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
