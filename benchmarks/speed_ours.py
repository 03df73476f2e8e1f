"""The steps of astra_jax that benchmarks/speed.py measures."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from twin.sizes import Sizes

from astra_jax.config.load import load_config
from astra_jax.devices import batch_sharding, make_mesh
from astra_jax.model import ASTRA, count_parameters
from astra_jax.runs.folder import RunFolder
from astra_jax.runs.settings import Settings, resolve
from astra_jax.spotting.programs import compile_apply
from astra_jax.training.optimizer import make_optimizer
from astra_jax.training.state import init_state
from astra_jax.training.step import make_train_step

STEPS_PER_EPOCH = 4000


def settings_of(config: str) -> Settings:
    """Those of a config file, `PATH` or `PATH:ARGUMENT`; no matches are read."""
    loaded = load_config(config, ["--config.data.root=matches"])
    return Settings.from_config(resolve(loaded, RunFolder(Path("run"))))


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


def model_step(
    mode: str, config: str, sizes: Sizes, batch: dict[str, Any]
) -> tuple[Callable[[], None], dict[str, Any]]:
    """The real train step, or a forward pass as in an evaluation; its FLOPs by XLA's count."""
    del sizes  # the config says it all
    settings = settings_of(config)
    model, seed = ASTRA(settings.model), settings.seed
    mesh = make_mesh(jax.devices()[:1])
    clips = jax.device_put(with_masks(batch), batch_sharding(mesh))
    if mode == "forward":
        return _forward(model, clips)
    optimizer = make_optimizer(settings.optimizer, STEPS_PER_EPOCH)
    step = make_train_step(model, settings.loss, optimizer, STEPS_PER_EPOCH, seed, mesh)
    state = init_state(model, optimizer, seed, mesh)
    compiled = step.lower(state, clips).compile()
    told = {"parameters": count_parameters(state.params), "flops": _flops(compiled)}

    def train() -> None:
        nonlocal state
        state, values = compiled(state, clips)
        jax.block_until_ready((state, values))

    return train, told


def _forward(model: ASTRA, clips: Any) -> tuple[Callable[[], None], dict[str, Any]]:
    params = jax.jit(model.initial_params)(jax.random.key(0))
    inputs = {name: clips[name] for name in ("features", "log_mel", "masks") if name in clips}
    compiled = compile_apply(model).lower(params, inputs).compile()
    told = {"parameters": count_parameters(params), "flops": _flops(compiled)}
    return lambda: _wait(compiled(params, inputs)), told


def product(size: int) -> tuple[Callable[[], None], dict[str, Any]]:
    """A product of square matrices in float32."""
    matrix = jax.random.uniform(jax.random.key(0), (size, size))
    compiled = jax.jit(jnp.matmul).lower(matrix, matrix).compile()
    return lambda: _wait(compiled(matrix, matrix)), {}


def _wait(result: Any) -> None:
    jax.block_until_ready(result)


def _flops(compiled: Any) -> float:
    return float(compiled.cost_analysis()["flops"])
