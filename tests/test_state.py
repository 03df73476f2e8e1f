"""One training step: the moving average of the weights beside them."""

import jax
import numpy as np
import optax
import pytest

from astra_jax.model import ModelConfig, SourceConfig
from astra_jax.training.losses import LossConfig
from astra_jax.training.state import init_state, make_mesh, make_train_step

MODEL = ModelConfig(
    sources=(SourceConfig(4, (3,)),),
    positions=4,
    classes=2,
    dim=6,
    heads=1,
    feed_forward=4,
    encoder_layers=1,
    decoder_layers=1,
)
LOSS = LossConfig(focal=True, classification_weight=100.0, displacement_weight=1.0, mask_radius=1)


def batch():
    rng = np.random.default_rng(0)
    targets = (2, 4, 3)
    return {
        "features": (rng.normal(size=(2, 4, 3)).astype(np.float32),),
        "class_targets": (rng.random(targets) < 0.3).astype(np.float32),
        "displacements": rng.normal(size=targets).astype(np.float32),
        "displacement_mask": rng.random(targets) < 0.5,
    }


def states(decay, steps):
    """The state after each step; the first is the one before any."""
    mesh, optimizer = make_mesh(jax.devices()[:1]), optax.sgd(0.1)
    state = init_state(MODEL, optimizer, 0, mesh, averaged=decay > 0)
    step = make_train_step(MODEL, LOSS, optimizer, 10, 0, mesh, decay)
    found = [jax.device_get(state)]
    for _ in range(steps):
        state, _ = step(state, batch())
        found.append(jax.device_get(state))
    return found


def test_the_average_follows_the_parameters():
    found = states(0.15, 3)
    kernels = [state.params["encoder"]["layer_0"]["feed_forward"]["hidden"] for state in found]
    expected = kernels[0]["dense"]["kernel"]
    # (1 + step) / (10 + step) as long as that is less: 0.1, then 2/11 is more than 0.15.
    for kernel, decay in zip(kernels[1:], (0.1, 0.15, 0.15), strict=True):
        expected = decay * expected + (1 - decay) * kernel["dense"]["kernel"]
    average = found[-1].average["encoder"]["layer_0"]["feed_forward"]["hidden"]["dense"]["kernel"]
    np.testing.assert_allclose(average, expected, rtol=1e-5, atol=1e-7)
    assert np.abs(average - kernels[-1]["dense"]["kernel"]).max() > 0


def test_the_average_is_what_predicts():
    with_average, without = states(0.5, 1)[-1], states(0.0, 1)[-1]
    assert with_average.eval_params is with_average.average
    assert without.average is None and without.eval_params is without.params
    # Keeping an average changes nothing of the training itself.
    for ours, theirs in zip(
        jax.tree.leaves(with_average.params), jax.tree.leaves(without.params), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_nothing_is_averaged_unless_asked(decay):
    assert (states(decay, 0)[0].average is None) == (decay == 0)
