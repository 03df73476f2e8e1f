"""VGGish's convolution, pooling and ReLU in one: values and gradients are those of flax's three."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from astra_jax.devices import batch_sharding, make_mesh, replicated
from astra_jax.model.convolution import convolve

SIZES = {
    "few channels, pooled": (16, 12, 1, 8, True),
    "few channels": (8, 12, 3, 8, False),
    "many channels, pooled": (8, 12, 16, 24, True),
    "many channels": (8, 12, 16, 24, False),
    "odd sizes, pooled": (7, 9, 16, 8, True),
    "odd sizes": (7, 9, 16, 8, False),
}


def of_flax(images, kernel, bias, pooled):
    """What the published model does: convolution, ReLU, pooling."""
    flat = images.reshape(-1, *images.shape[2:])
    convolution = nn.Conv(kernel.shape[-1], (3, 3), dtype=images.dtype)
    x = nn.relu(convolution.apply({"params": {"kernel": kernel, "bias": bias}}, flat))
    if pooled:
        x = nn.max_pool(x, (2, 2), (2, 2))
    return x.reshape(*images.shape[:2], *x.shape[1:])


def inputs(size, dtype=jnp.float32, clips=2, segments=3):
    rows, columns, channels, features, _ = SIZES[size]
    rng = np.random.default_rng(0)
    shapes = (clips, segments, rows, columns, channels), (3, 3, channels, features), (features,)
    scales = 1, 1 / np.sqrt(9 * channels), 0.3
    return [
        jnp.asarray(scale * rng.normal(size=shape), dtype)
        for shape, scale in zip(shapes, scales, strict=True)
    ]


def values_and_gradients(function, pooled, args):
    """The result, and the gradients of a sum that weighs each number differently."""

    def both(*args):
        result, back = jax.vjp(lambda *args: function(*args, pooled), *args)
        weights = np.random.default_rng(1).normal(size=result.shape)
        return result, *back(jnp.asarray(weights, result.dtype))

    return jax.jit(both)(*args)


def assert_same(ours, theirs, tolerance):
    for one, other in zip(ours, theirs, strict=True):
        assert one.dtype == other.dtype
        other = np.asarray(other, np.float32)
        scale = np.abs(other).max()
        np.testing.assert_allclose(np.asarray(one, np.float32), other, atol=tolerance * scale)


@pytest.mark.parametrize("size", SIZES)
def test_values_and_gradients_are_those_of_flax(size):
    pooled, args = SIZES[size][-1], inputs(size)
    assert_same(
        values_and_gradients(convolve, pooled, args),
        values_and_gradients(of_flax, pooled, args),
        tolerance=2e-6,
    )


@pytest.mark.parametrize("size", SIZES)
def test_in_bfloat16_they_are_those_of_float32_but_for_its_rounding(size):
    """Of values that bfloat16 has: what is computed of them may be rounded, no more."""
    pooled, args = SIZES[size][-1], inputs(size, jnp.bfloat16)
    ours = values_and_gradients(convolve, pooled, args)
    assert {x.dtype for x in ours} == {jnp.dtype(jnp.bfloat16)}
    # The largest of four that are equal in bfloat16 may be another one in float32.
    chosen = [0, 1, 2, 3] if not pooled else [0, 3]
    full = [x.astype(jnp.float32) for x in args]
    exact = values_and_gradients(of_flax, pooled, full)
    assert_same(
        [ours[i] for i in chosen], [exact[i].astype(jnp.bfloat16) for i in chosen], tolerance=0.02
    )


@pytest.mark.parametrize("size", [size for size in SIZES if SIZES[size][-1]])
def test_of_equal_numbers_the_first_gets_the_gradient(size):
    """Images of one color: inside of them all four numbers of a pooling are equal."""
    images, kernel, bias = inputs(size)
    # Multiples of 1/8: no rounding tells apart what is equal.
    args = jnp.ones_like(images), jnp.round(8 * kernel) / 8, jnp.abs(bias) + 3
    ours = values_and_gradients(convolve, True, args)
    assert_same(ours, values_and_gradients(of_flax, True, args), tolerance=2e-6)


@pytest.mark.parametrize("pooled", [True, False])
def test_a_shut_relu_lets_no_gradient_through(pooled):
    images, kernel, bias = inputs("many channels")
    shut = values_and_gradients(convolve, pooled, (images, kernel, bias - 100))
    assert all(not np.any(x) for x in shut)


def test_what_is_not_a_number_stays_that():
    images, kernel, bias = inputs("many channels, pooled")
    result = convolve(images.at[1, 2, 4, 6].set(jnp.nan), kernel, bias, True)
    assert np.isnan(result[1, 2]).any()
    assert not np.isnan(result[0]).any()


@pytest.mark.parametrize("size", SIZES)
def test_computed_again_in_the_backward_pass_they_are_the_same(size):
    pooled, args = SIZES[size][-1], inputs(size)
    again = jax.checkpoint(convolve, static_argnums=(3,))
    assert_same(
        values_and_gradients(again, pooled, args),
        values_and_gradients(convolve, pooled, args),
        tolerance=0,
    )


@pytest.mark.parametrize("size", SIZES)
def test_with_clips_on_eight_devices_they_are_the_same(size):
    pooled, args = SIZES[size][-1], inputs(size, clips=8)
    mesh = make_mesh()
    shardings = batch_sharding(mesh), replicated(mesh), replicated(mesh)
    split = [jax.device_put(x, sharding) for x, sharding in zip(args, shardings, strict=True)]
    ours = values_and_gradients(convolve, pooled, split)
    assert [x.sharding.is_fully_replicated for x in ours] == [False, False, True, True]
    assert_same(ours, values_and_gradients(convolve, pooled, args), tolerance=2e-6)


def lowered(platform, size="many channels, pooled"):
    """The program of values and gradients, before a compiler sees it."""

    def gradients(*args):
        result, back = jax.vjp(lambda *args: convolve(*args, SIZES[size][-1]), *args)
        return back(result)

    traced = jax.jit(gradients).trace(*inputs(size))
    return traced.lower(lowering_platforms=(platform,)).as_text()


def test_a_gpu_is_given_convolutions_and_no_scatter():
    program = lowered("cuda")
    assert program.count("stablehlo.convolution") == 3
    assert "scatter" not in program
    assert "stablehlo.while" not in program
    assert "stablehlo.dot_general" not in program


def test_a_cpu_is_given_products_of_matrices_alone():
    program = lowered("cpu")
    assert "stablehlo.convolution" not in program
    assert "stablehlo.dot_general" in program


def test_blocks_of_segments_take_little_memory_however_many_there_are():
    """What isn't kept lives for one block: four times the images would be 75 MB."""
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.normal(size=(1, 64, 24, 32, 48)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(3, 3, 48, 48)), jnp.float32)
    program = jax.jit(convolve, static_argnums=3).lower(images, kernel, kernel[0, 0, 0], False)
    memory = program.compile().memory_analysis()
    assert memory.temp_size_in_bytes < 4.5e7 + images.nbytes
