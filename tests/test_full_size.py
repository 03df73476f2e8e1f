"""The paper's model at its real size: minutes and gigabytes, so marked slow."""

import jax
import numpy as np
import pytest

from astra_jax.config.load import load_config
from astra_jax.devices import make_mesh
from astra_jax.model import ModelConfig
from astra_jax.model.initial_values import parameter_count
from astra_jax.training.losses import LossConfig
from astra_jax.training.optimizer import make_optimizer
from astra_jax.training.state import init_state
from astra_jax.training.step import make_train_step

STEPS_PER_EPOCH = 4050


def random_batch(config, clips):
    rng = np.random.default_rng(0)
    targets = (clips, config.positions, config.classes + 1)
    batch = {
        "features": tuple(
            np.abs(rng.normal(size=(clips, s.rows, s.width))).astype(np.float32)
            for s in config.sources
        ),
        "masks": {"features": tuple(np.ones((clips, s.rows), bool) for s in config.sources)},
        "class_targets": (rng.random(targets) < 0.05).astype(np.float32),
        "displacements": rng.integers(-6, 7, targets).astype(np.float32),
        "displacement_mask": rng.random(targets) < 0.05,
    }
    if config.audio is not None:
        frames = (clips, config.audio.frames)
        batch["log_mel"] = rng.normal(-40, 15, (*frames, config.audio.mels)).astype(np.float32)
        batch["masks"]["log_mel"] = np.ones(frames, bool)
    return batch


@pytest.mark.slow
@pytest.mark.parametrize(("variant", "parameters"), [("visual", 44_299_574), ("full", 168_372_918)])
def test_a_step_of_the_papers_model_is_finite_and_moves_every_part(variant, parameters):
    config = load_config(f"configs/astra.py:{variant}")
    model = ModelConfig.from_config(config)
    mesh = make_mesh(jax.devices()[:1])
    optimizer = make_optimizer(config, STEPS_PER_EPOCH)
    state = init_state(model, optimizer, config.seed, mesh)
    assert parameter_count(state.params) == parameters
    before = jax.device_get(state.params)
    step = make_train_step(
        model, LossConfig.from_config(config), optimizer, STEPS_PER_EPOCH, config.seed, mesh
    )
    state, told = step(state, random_batch(model, clips=2))
    assert np.isfinite(told.losses).all() and told.losses[0] > 0
    after = jax.device_get(state.params)
    for path, value in jax.tree.leaves_with_path(after):
        assert np.isfinite(value).all(), path
    for part, params in after.items():
        moved = jax.tree.map(lambda a, b: np.any(a != b), params, before[part])
        assert any(jax.tree.leaves(moved)), part
