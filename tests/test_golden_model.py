"""The model, the losses and the optimiser against recordings of the published system."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.models import shapes_of

from astra_jax.data.audio import power_to_db
from astra_jax.errors import UserError
from astra_jax.model import ASTRA
from astra_jax.torch_import import from_state_dict
from astra_jax.training.losses import LossConfig, losses
from astra_jax.training.optimizer import scale_by_amsgrad

GOLDEN = Path(__file__).parent / "golden"


def load(name):
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as file:
        return dict(file)


def tensors(golden, prefix):
    return {k.removeprefix(prefix): v for k, v in golden.items() if k.startswith(prefix)}


def inputs_of(golden):
    mel = golden.get("mel_power")
    log_mel = None if mel is None else power_to_db(mel, floor_db=-80.0)
    return {"features": (golden["features"],), "log_mel": log_mel}


def optimized(function):
    """Jitted as users have it; the rest of the suite compiles quickly."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 3})


@pytest.mark.parametrize("name", ["forward_audio", "forward_visual"])
def test_forward_equals_the_published_model(name):
    golden = load(name)
    config, params = from_state_dict(tensors(golden, "sd/"), heads=8, hierarchical=True)
    apply = optimized(lambda params, inputs: ASTRA(config).apply({"params": params}, inputs))
    out = apply(params, inputs_of(golden))
    np.testing.assert_allclose(out.probabilities, golden["probs"], atol=1e-4)
    np.testing.assert_allclose(out.displacement_mean, golden["displacement_mean"], atol=1e-4)
    np.testing.assert_allclose(
        out.displacement_log_variance, golden["displacement_logvar"], atol=1e-4
    )


def test_imported_tree_has_exactly_the_models_parameters():
    golden = load("forward_audio")
    config, params = from_state_dict(tensors(golden, "sd/"))
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, shapes_of(ASTRA(config)))


def train_setup(name):
    golden = load(name)
    config, params = from_state_dict(tensors(golden, "sd/"))
    return golden, config, jax.tree.map(jnp.asarray, params)


@pytest.mark.parametrize("name", ["train_audio", "train_visual", "train_plain"])
def test_three_steps_equal_the_published_training(name):
    golden, config, params = train_setup(name)
    recorded = golden["displacement_targets"]
    mask = recorded != 1000
    loss_config = LossConfig(name != "train_plain", 100.0, 1.0, 2)

    def loss(params, inputs):
        out = ASTRA(config).apply({"params": params}, inputs, train=False)
        parts = losses(out, golden["targets"], jnp.where(mask, recorded, 0), mask, loss_config)
        return parts.total, parts

    optimizer = optax.chain(
        optax.add_decayed_weights(1e-5), scale_by_amsgrad(), optax.scale(-float(golden["lr"]))
    )
    state, update = optimizer.init(params), jax.jit(optimizer.update)
    # The largest of the three as users have it: so compiled each takes seconds.
    jit = optimized if name == "train_audio" else jax.jit
    step, inputs = jit(jax.value_and_grad(loss, has_aux=True)), inputs_of(golden)
    for i in range(3):
        (_, parts), grads = step(params, inputs)
        if i == 0:
            _, expected = from_state_dict(tensors(golden, "grad/"))
            assert_close_by_tensor(grads, expected)
        seen = (100 * parts.classification, parts.displacement)
        np.testing.assert_allclose(seen, golden["losses"][i], rtol=1e-4)
        updates, state = update(grads, state, params)
        params = optax.apply_updates(params, updates)
    _, expected = from_state_dict(tensors(golden, "final/"))
    for path, value in jax.tree.leaves_with_path(params):
        if is_key_bias(path):
            continue
        np.testing.assert_allclose(
            value, leaf(expected, path), atol=1e-4, err_msg=jax.tree_util.keystr(path)
        )


def is_key_bias(path):
    """It has no true gradient, only noise of 1e-9 that Adam blows up."""
    return jax.tree_util.keystr(path).endswith("['key']['bias']")


def leaf(tree, path):
    for key in path:
        tree = tree[key.key]
    return tree


def assert_close_by_tensor(tree, expected):
    """Within 1e-4 of each tensor's largest entry, 1e-8 where it has no gradient."""
    for path, value in jax.tree.leaves_with_path(tree):
        want = leaf(expected, path)
        if is_key_bias(path):
            assert np.abs(value).max() < 1e-6
            continue
        atol = max(1e-4 * np.abs(want).max(), 1e-8)
        np.testing.assert_allclose(
            value, want, rtol=0, atol=atol, err_msg=jax.tree_util.keystr(path)
        )


def test_a_missing_tensor_is_named():
    state = tensors(load("forward_visual"), "sd/")
    del state["Tencoder.layers.1.norm1.weight"]
    with pytest.raises(UserError, match="Tencoder.layers.1.norm1.weight"):
        from_state_dict(state)


def test_a_tensor_of_another_model_is_named():
    state = tensors(load("forward_visual"), "sd/") | {"backbone.weight": np.zeros(3)}
    with pytest.raises(UserError, match="backbone.weight"):
        from_state_dict(state)


def test_queue_buffers_of_a_published_checkpoint_are_ignored():
    state = tensors(load("forward_visual"), "sd/")
    config, _ = from_state_dict(state | {"labelQ": np.zeros((18, 2, 3)), "featBQ": np.zeros(2)})
    assert config.positions == 20
