"""Seconds of VGGish's convolutions and poolings and of their gradients, each alone.

Run:  python benchmarks/vggish_operations.py

On 26 images, the audio of half a clip, in float32: where a train step with audio spends its time on
the device that JAX takes (docs/performance.md). Medians of 3.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

IMAGES = 26
BLOCKS = ((96, 128, 1, 64), (48, 64, 64, 128), (24, 32, 256, 256), (12, 16, 512, 512))
"""Frames and mels of a block, channels in and out of its last convolution."""

Images = Float[Array, "image frame mel channel"]


def convolve(images: Images, kernel: Float[Array, "3 3 channel_in channel_out"]) -> Images:
    """A convolution of 3 x 3 with padding, as VGGish's."""
    layout = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=layout)


def pool(images: Images) -> Images:
    """The largest of each 2 x 2."""
    return nn.max_pool(images, (2, 2), (2, 2))


def seconds(function: Callable[..., Any], *args: Any) -> float:
    """What a call takes, compiled."""
    compiled = jax.jit(function).lower(*args).compile()
    taken = []
    for _ in range(4):
        started = time.perf_counter()
        jax.block_until_ready(compiled(*args))
        taken.append(time.perf_counter() - started)
    return statistics.median(taken[1:])


def main() -> None:
    """Prints a line of a Markdown table a block."""
    keys = jax.random.split(jax.random.key(0), 3)
    for frames, mels, before, after in BLOCKS:
        images = jax.random.normal(keys[0], (IMAGES, frames, mels, before))
        kernel = jax.random.normal(keys[1], (3, 3, before, after))
        output = jax.random.normal(keys[2], (IMAGES, frames, mels, after))
        pooled = pool(output)
        both = images, kernel
        cells = [
            seconds(convolve, *both),
            seconds(lambda x, k, g: jax.vjp(lambda y: convolve(y, k), x)[1](g), *both, output),
            seconds(lambda x, k, g: jax.vjp(lambda w: convolve(x, w), k)[1](g), *both, output),
            seconds(pool, output),
            seconds(lambda x, g: jax.vjp(pool, x)[1](g), output, pooled),
        ]
        name = f"{frames} x {mels}, {before} to {after}"
        print(f"| {name} | {' | '.join(f'{s:.2f} s' for s in cells)} |", flush=True)


if __name__ == "__main__":
    main()
