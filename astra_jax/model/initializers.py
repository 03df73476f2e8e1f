"""Distributions that parameters start from, which JAX and NumPy can both draw.

Each tensor drawn by JAX is a program of its own to compile, and those of a model took longer than
its step. So a model's start is drawn on the host: `described` makes the initialisers say what they
would draw instead of drawing it, and `draw` draws it.
"""

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import flax
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict
from jaxtyping import Array, Float, Float32, Key

_describing: ContextVar[bool] = ContextVar("describing", default=False)


@runtime_checkable  # the tests check arguments as they are passed
class Distribution(Protocol):
    """What the values of one parameter start as."""

    def by_jax(
        self, key: Key[Array, ""], shape: tuple[int, ...], dtype: Any
    ) -> Float[Array, "*shape"]:
        """Values of this shape, drawn by JAX."""
        ...

    def by_numpy(
        self, rng: np.random.Generator, shape: tuple[int, ...]
    ) -> Float32[np.ndarray, "*shape"]:
        """The same distribution's values, drawn by NumPy."""
        ...


@dataclass(frozen=True)
class Uniform:
    """Uniform in [low, high)."""

    low: float
    high: float

    def by_jax(
        self, key: Key[Array, ""], shape: tuple[int, ...], dtype: Any
    ) -> Float[Array, "*shape"]:
        """See `Distribution`."""
        return jax.random.uniform(key, shape, dtype, self.low, self.high)

    def by_numpy(
        self, rng: np.random.Generator, shape: tuple[int, ...]
    ) -> Float32[np.ndarray, "*shape"]:
        """See `Distribution`."""
        values = rng.random(shape, np.float32)
        values *= np.float32(self.high - self.low)  # in place: the largest tensor has 200 MB
        values += np.float32(self.low)
        return values


@dataclass(frozen=True)
class Constant:
    """The same value everywhere."""

    value: float

    def by_jax(
        self, key: Key[Array, ""], shape: tuple[int, ...], dtype: Any
    ) -> Float[Array, "*shape"]:
        """See `Distribution`."""
        return jnp.full(shape, self.value, dtype)

    def by_numpy(
        self, rng: np.random.Generator, shape: tuple[int, ...]
    ) -> Float32[np.ndarray, "*shape"]:
        """See `Distribution`."""
        return np.full(shape, self.value, np.float32)


@dataclass(frozen=True)
class Sinusoids:
    """Not random: `sinusoids` of these times, in output positions."""

    times: tuple[float, ...]

    def by_jax(
        self, key: Key[Array, ""], shape: tuple[int, ...], dtype: Any
    ) -> Float[Array, "*shape"]:
        """See `Distribution`."""
        return jnp.asarray(sinusoids(np.array(self.times), shape[-1]), dtype)

    def by_numpy(
        self, rng: np.random.Generator, shape: tuple[int, ...]
    ) -> Float32[np.ndarray, "*shape"]:
        """See `Distribution`."""
        return sinusoids(np.array(self.times), shape[-1])


def sinusoids(times: Float[np.ndarray, " step"], dim: int) -> Float32[np.ndarray, "step dim"]:
    """Sines and cosines of a clock: column pairs tick from every 2 to every 20,000 output steps.

    Args:
        times: moments inside the clip, counted in output positions, so that codes of any
            rate and the queries share one clock.
        dim: columns; the first half are sines, the second cosines.

    Source: the encodings of "Attention is all you need", section 3.5.
    """
    pairs = (dim + 1) // 2
    angles = times[:, None] / 10_000 ** (np.arange(pairs) / pairs)[None, :]
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)[:, :dim].astype(np.float32)


@flax.struct.dataclass
class _Described(nn.meta.AxisMetadata[Any]):
    """A parameter with its distribution; flax takes it out of this box where it computes."""

    value: Any
    distribution: Any = flax.struct.field(pytree_node=False)

    def unbox(self) -> Any:
        return self.value

    def replace_boxed(self, val: Any) -> "_Described":
        return _Described(val, self.distribution)

    def add_axis(self, index: int, params: dict[Any, Any]) -> "_Described":
        raise NotImplementedError("stacked layers: their distribution would need another axis")

    def remove_axis(self, index: int, params: dict[Any, Any]) -> "_Described":
        raise NotImplementedError("stacked layers: their distribution would need another axis")


def initializer(distribution: Distribution) -> nn.initializers.Initializer:
    """What flax takes: draws from `distribution` by JAX, or says so where that is asked for."""

    def init(key: Key[Array, ""], shape: Sequence[int], dtype: Any = jnp.float32) -> Any:
        if _describing.get():
            return _Described(jnp.zeros(shape, dtype), distribution)
        return distribution.by_jax(key, tuple(shape), dtype)

    return init


@contextlib.contextmanager
def described() -> Iterator[None]:
    """Within it, initialisers of this file give zeros, boxed with what `draw` needs."""
    token = _describing.set(True)
    try:
        yield
    finally:
        _describing.reset(token)


def draw(abstract: Any, seed: int) -> tuple[dict[str, Float32[np.ndarray, "..."]], list[str]]:
    """Draws what is boxed in a tree of parameters made under `described` and `jax.eval_shape`.

    A parameter's values hang on the seed, its path, shape and distribution alone.

    Returns:
        Arrays by the parameters' paths, and the paths of those whose distribution isn't known.
    """
    boxed = flatten_dict(abstract, sep="/")
    known = {path: leaf for path, leaf in boxed.items() if isinstance(leaf, _Described)}
    return {
        path: leaf.distribution.by_numpy(_generator(seed, path), leaf.value.shape)
        for path, leaf in known.items()
    }, [path for path in boxed if path not in known]


def _generator(seed: int, path: str) -> np.random.Generator:
    name = int.from_bytes(hashlib.sha256(path.encode()).digest()[:16], "big")
    return np.random.default_rng(np.random.SeedSequence([seed, name]))
