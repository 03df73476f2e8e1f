"""Random numbers for dropout and augmentation: a cheap generator behind JAX's keys."""

import math
from typing import Any

import jax
import jax.extend.random
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, UInt, UInt32

_Word = UInt32[Array, "..."]
_Words = tuple[_Word, _Word, _Word]


def cheap_key(key: Key[Array, ""]) -> Key[Array, ""]:
    """A key for `jax.random` whose numbers cost a sixth of the usual ones, drawn from `key`.

    Each number is a hash of the key and of its place, computed where it is used: the same on any
    number of devices, like JAX's own (Threefry), which is made for more than dropout: it takes a
    quarter of a training step on a CPU, and is a third of the step's program.

    Only the upper half of a number's bits is that good: within a draw bit i repeats itself every
    2^(17 + i) numbers, and the lowest few hang on those of other draws. What compares whole numbers
    (`model.dropout`) or makes floats of them (uniform, bernoulli, normal) never shows it;
    what divides them (randint, permutation) would.

    `key`: one of two words, Threefry's.
    """
    return jax.random.wrap_key_data(jax.random.key_data(key), impl=_PCG3D)


def _hash(x: _Word, y: _Word, z: _Word) -> _Words:
    """Three words to three: pcg3d of "Hash Functions for GPU Rendering" (Jarzynski, Olano 2020)."""
    x, y, z = (word * np.uint32(1664525) + np.uint32(1013904223) for word in (x, y, z))
    x, y, z = _multiply(x, y, z)
    x, y, z = (word ^ (word >> np.uint32(16)) for word in (x, y, z))
    return _multiply(x, y, z)


def _multiply(x: _Word, y: _Word, z: _Word) -> _Words:
    x = x + y * z
    y = y + z * x
    return x, y, z + x * y


def _seed(seed: Any) -> UInt32[Array, "2"]:
    word = jax.lax.convert_element_type(seed, jnp.uint32)
    return jnp.stack([jnp.zeros_like(word), word])


def _split(key: UInt32[Array, "2"], shape: tuple[int, ...]) -> UInt32[Array, "*shape 2"]:
    x, y, _ = _hash(key[0], key[1] ^ np.uint32(0x9E3779B9), _places(shape))
    return jnp.stack([x, y], axis=-1)


def _fold_in(key: UInt32[Array, "2"], data: Any) -> UInt32[Array, "2"]:
    # Short, for it is computed wherever numbers are; their hash mixes it.
    word = (key[0] ^ jnp.asarray(data, jnp.uint32)) * np.uint32(0x9E3779B1) + key[1]
    word ^= word >> np.uint32(16)  # or the highest bit would touch no other
    return jnp.stack([word, key[1] * np.uint32(0x85EBCA77) + word])


def _random_bits(
    key: UInt32[Array, "2"], bit_width: int, shape: tuple[int, ...]
) -> UInt[Array, "*shape"]:
    if bit_width not in (8, 16, 32):
        raise ValueError(f"{bit_width} bits a number: 8, 16 or 32")
    bits, _, _ = _hash(_places(shape), key[0], key[1])
    if bit_width == 32:
        return bits
    return (bits >> np.uint32(32 - bit_width)).astype(jnp.dtype(f"uint{bit_width}"))


def _places(shape: tuple[int, ...]) -> UInt32[Array, "*shape"]:
    """The flat place of each number."""
    size = math.prod(shape)
    assert size <= 2**32  # numbers would repeat
    return jax.lax.iota(jnp.uint32, size).reshape(shape)


_PCG3D = jax.extend.random.define_prng_impl(
    key_shape=(2,),
    seed=_seed,
    split=_split,
    random_bits=_random_bits,
    fold_in=_fold_in,
    name="pcg3d",
    tag="pcg3d",
)
