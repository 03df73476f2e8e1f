"""The paper's model at its real size: minutes and gigabytes, so marked slow."""

import jax
import numpy as np
import pytest
from helpers.models import full_masks, random_batch, settings_of

from astra_jax.config.load import load_config
from astra_jax.devices import make_mesh
from astra_jax.model import ASTRA, count_parameters
from astra_jax.training.optimizer import make_optimizer
from astra_jax.training.state import init_state
from astra_jax.training.step import make_train_step

STEPS_PER_EPOCH = 4050


@pytest.mark.slow
@pytest.mark.parametrize(("variant", "parameters"), [("visual", 44_299_574), ("full", 168_372_918)])
def test_a_step_of_the_papers_model_is_finite_and_moves_every_part(variant, parameters):
    settings = settings_of(load_config(f"configs/astra.py:{variant}"))
    model, seed, mesh = ASTRA(settings.model), settings.seed, make_mesh(jax.devices()[:1])
    optimizer = make_optimizer(settings.optimizer, STEPS_PER_EPOCH)
    state = init_state(model, optimizer, seed, mesh)
    assert count_parameters(state.params) == parameters
    before = jax.device_get(state.params)
    step = make_train_step(model, settings.loss, optimizer, STEPS_PER_EPOCH, mesh)
    batch = random_batch(settings.model, clips=2, share=0.05)
    state, told = step(state, batch | {"masks": full_masks(batch)})
    assert np.isfinite(told.losses).all() and told.losses[0] > 0
    after = jax.device_get(state.params)
    for path, value in jax.tree.leaves_with_path(after):
        assert np.isfinite(value).all(), path
    for part, params in after.items():
        moved = jax.tree.map(lambda a, b: np.any(a != b), params, before[part])
        assert any(jax.tree.leaves(moved)), part
