"""The steps of astra_jax that benchmarks/speed.py measures."""

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from made_up_matches import settings_of
from speed_steps import Request, Steps
from speed_trace import kernels_of

from astra_jax.devices import batch_sharding, make_mesh
from astra_jax.model import count_parameters
from astra_jax.runs.components import USUAL, Computation, build

STEPS_PER_EPOCH = 4000


def with_masks(batch: dict[str, Any]) -> dict[str, Any]:
    """The batch as ours come: features by source, and masks, here of clips that lack nothing."""
    features, log_mel = batch["features"], batch["log_mel"]
    masks: dict[str, Any] = {"features": (np.ones(features.shape[:2], bool),)}
    full = batch | {"features": (features,), "masks": masks}
    if log_mel is None:
        del full["log_mel"]
    else:
        masks["log_mel"] = np.ones(log_mel.shape[:2], bool)
    return full


def prepare(request: Request, batch: dict[str, Any] | None) -> Steps:
    """The real train step, a forward pass as in an evaluation, or a product of matrices."""
    if batch is None:
        return _product(request.clips, request.dtype)
    components = dataclasses.replace(USUAL, make_mesh=lambda: make_mesh(jax.devices()[:1]))
    settings = settings_of(request.config, **{"model.dtype": request.dtype})
    run = build(settings, STEPS_PER_EPOCH, components)
    clips = jax.device_put(with_masks(batch), batch_sharding(run.mesh))
    return _train(run, clips) if request.mode == "train" else _forward(run, clips)


def _train(run: Computation, clips: Any) -> Steps:
    state, values = run.draw_state(), None
    compiled = run.step.lower(state, clips).compile()
    flops = _flops(run.step, state, clips)
    told = {"parameters": count_parameters(state.params), "flops": flops}

    def take() -> None:
        nonlocal state, values
        state, values = compiled(state, clips)

    return Steps(take, lambda: jax.block_until_ready((state, values)), told)


def _forward(run: Computation, clips: Any) -> Steps:
    params, predictions = run.draw_state().params, None
    inputs = {name: clips[name] for name in ("features", "log_mel", "masks") if name in clips}
    apply = jax.jit(lambda params, inputs: run.model.apply({"params": params}, inputs))
    compiled = apply.lower(params, inputs).compile()
    told = {"parameters": count_parameters(params), "flops": _flops(apply, params, inputs)}

    def take() -> None:
        nonlocal predictions
        predictions = compiled(params, inputs)

    return Steps(take, lambda: jax.block_until_ready(predictions), told)


def _product(size: int, dtype: str) -> Steps:
    matrix = jax.random.uniform(jax.random.key(0), (size, size)).astype(dtype)
    compiled, result = jax.jit(jnp.matmul).lower(matrix, matrix).compile(), None

    def take() -> None:
        nonlocal result
        result = compiled(matrix, matrix)

    return Steps(take, lambda: jax.block_until_ready(result))


def _flops(function: Any, *args: Any) -> float:
    """Of the program with plain convolutions: on a CPU ours have fewer, in loops counted once."""
    plain = function.trace(*args).lower(lowering_platforms=("tpu",))
    return float(plain.cost_analysis()["flops"])


def forget_peak() -> None:
    """JAX's allocator keeps its peak from the beginning: starting and compiling are in it."""


def peak_bytes() -> int | None:
    """The most bytes in use on the first device; None where it is the CPU."""
    stats = jax.devices()[0].memory_stats()
    return None if stats is None else int(stats["peak_bytes_in_use"])


def count_kernels(steps: Steps, count: int) -> dict[str, float]:
    """Kernels a step and their milliseconds; none on a CPU."""
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(count):
                steps.take()
            steps.wait()
        (file,) = Path(folder).rglob("*.trace.json.gz")
        return kernels_of(file, count)
