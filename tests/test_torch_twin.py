"""The PyTorch twin of benchmarks/ is the same model: what its speed is compared with is equal."""

import dataclasses
import functools

import jax
import numpy as np
import optax
import pytest
import torch
from helpers.models import random_like, settings_of
from twin.model import TorchASTRA, switched_order
from twin.sizes import Sizes
from twin.training import TorchBatch, make_step, total_loss
from twin.weights import to_state_dict

from astra_jax.config.load import load_config
from astra_jax.devices import make_mesh
from astra_jax.model import ASTRA, ModelConfig, SourceShape, VGGishConfig
from astra_jax.torch_import import from_state_dict
from astra_jax.training.gradients import make_gradients
from astra_jax.training.losses import LossConfig, losses
from astra_jax.training.optimizer import scale_by_amsgrad

LEARNING_RATE = 1e-3
LOSS = LossConfig(focal=True, classification_weight=100.0, displacement_weight=1.0, weight_radius=2)
# 22 tokens and 5 segments of audio: none of the first layer's four segments is like the last.
VISUAL = ModelConfig(
    sources=(SourceShape(11, (5, 3)),),
    positions=12,
    num_classes=3,
    dim=8,
    heads=2,
    feed_forward=16,
    decoder_layers=1,
    uncertainty=False,
)
AUDIO = dataclasses.replace(
    VISUAL,
    # Ten frames are left over.
    audio=VGGishConfig(frames=490, mels=32, channels=(2, 3, 4, 4, 5, 6), hidden=8),
    uncertainty=True,
)
MODELS = pytest.mark.parametrize("model", [VISUAL, AUDIO], ids=["visual, plain", "audio"])


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Threads that wait for each other cost more than arrays so small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def arrays_of(model, clips=2):
    """Clips by the names of our batches."""
    rng = np.random.default_rng(0)
    (source,) = model.sources
    targets = (clips, model.positions, model.num_classes + 1)
    log_mel = None
    if model.audio is not None:
        log_mel = rng.normal(-4, 2, (clips, model.audio.frames, model.audio.mels))
    batch = {
        "features": (rng.random((clips, source.rows, source.width)),),
        "log_mel": log_mel,
        "class_targets": rng.random(targets) * (rng.random(targets) < 0.3),
        "displacements": rng.integers(-6, 7, targets),
    }
    batch = jax.tree.map(lambda array: array.astype(np.float32), batch)
    return batch | {"displacement_mask": rng.random(targets) < 0.3}


def torch_batch(batch):
    (rows,) = batch["features"]
    names = ("log_mel", "class_targets", "displacements", "displacement_mask")
    others = {n: None if batch[n] is None else torch.tensor(batch[n]) for n in names}
    return TorchBatch(torch.tensor(rows), **others)


def make_twin(model):
    torch.manual_seed(1)
    return TorchASTRA(Sizes.of(model)).eval()


def twin_of(params, model):
    twin = make_twin(model)
    twin.load_state_dict(to_state_dict(params, model), strict=True)
    return twin


def params_of(twin, model):
    state = {name: tensor.numpy() for name, tensor in twin.state_dict().items()}
    return from_state_dict(state, heads=model.heads)[1]


@functools.cache
def forward(model):
    return jax.jit(lambda params, batch: ASTRA(model).apply({"params": params}, batch))


def assert_same_predictions(params, twin, model, clips=2):
    batch = arrays_of(model, clips)
    ours = forward(model)(params, batch)
    inputs = torch_batch(batch)
    with torch.inference_mode():
        theirs = twin(inputs.rows, inputs.log_mel)
    assert np.ptp(ours.probabilities) > 0.01  # not all the same
    np.testing.assert_allclose(ours.probabilities, theirs[0], rtol=0, atol=1e-4)
    np.testing.assert_allclose(ours.displacement_mean, theirs[1], rtol=0, atol=1e-4)
    if model.uncertainty:
        log_variance = ours.displacement_log_variance
        np.testing.assert_allclose(log_variance, theirs[2], rtol=0, atol=1e-4)
    else:
        assert ours.displacement_log_variance is None and theirs[2] is None
    targets = (batch[n] for n in ("class_targets", "displacements", "displacement_mask"))
    loss = losses(ours, *targets, LOSS).total
    np.testing.assert_allclose(total_loss(twin, inputs).detach(), loss, rtol=1e-4)


@MODELS
def test_the_twins_weights_give_the_same_predictions_in_ours(model):
    twin = make_twin(model)
    assert_same_predictions(params_of(twin, model), twin, model)


@MODELS
def test_our_weights_give_the_same_predictions_in_the_twin(model):
    params = random_params(model)
    assert_same_predictions(params, twin_of(params, model), model)


def random_params(model):
    return random_like(params_of(make_twin(model), model))


def test_the_gradients_of_the_twin_are_ours():
    rates = ("dropout", "embedding_dropout", "head_dropout")
    model = dataclasses.replace(AUDIO, encoder_layers=2, **dict.fromkeys(rates, 0.0))
    still = dataclasses.replace(model, temporal_dropout=0.0, temporal_switch=0.0)
    batch, twin = arrays_of(model), make_twin(model)
    params = params_of(twin, model)
    dropped = {part: p.pop("dropped_step") for part, p in params.items() if "dropped_step" in p}
    gradients_of = jax.jit(make_gradients(ASTRA(still), LOSS, make_mesh(jax.devices()[:1])))
    gradients, values = gradients_of(params, batch, jax.random.key(0))
    loss = total_loss(twin, torch_batch(batch))
    loss.backward()
    np.testing.assert_allclose(loss.detach(), values[0], rtol=1e-5)
    assert_same_gradients(gradients, dropped, twin, model)


def assert_same_gradients(gradients, dropped, twin, model):
    """The learned vectors of temporal dropout have none: it is off in evaluation."""
    zeros = {part: {"dropped_step": np.zeros_like(value)} for part, value in dropped.items()}
    full = {part: values | zeros.get(part, {}) for part, values in gradients.items()}
    expected = to_state_dict(full, model)
    for name, parameter in twin.named_parameters():
        if parameter.grad is None:
            assert name.startswith("temporal_drop"), name
            continue
        atol = max(1e-4 * float(expected[name].abs().max()), 1e-6)
        np.testing.assert_allclose(parameter.grad, expected[name], rtol=0, atol=atol, err_msg=name)


def test_the_twins_adam_is_ours():
    adam = optax.chain(
        optax.add_decayed_weights(1e-5), scale_by_amsgrad(), optax.scale(-LEARNING_RATE)
    )
    twin, batch = make_twin(VISUAL), torch_batch(arrays_of(VISUAL))
    step = make_step(twin, LEARNING_RATE)
    values = twin.queries.detach().numpy().copy()
    state = adam.init(values)
    calm = dataclasses.replace(batch, displacement_mask=batch.displacement_mask & False)
    for clips in (batch, calm, calm):  # gradients that shrink: the maximum stays
        step(clips)
        updates, state = adam.update(twin.queries.grad.numpy(), state, values)
        values = values + np.asarray(updates)
    np.testing.assert_allclose(twin.queries.detach(), values, rtol=0, atol=1e-6)


def test_the_twin_takes_steps_with_dropout_and_augmentation():
    """They change the loss, and every parameter learns."""
    twin, batch = make_twin(AUDIO), torch_batch(arrays_of(AUDIO))
    calm = total_loss(twin, batch).item()
    before = {name: p.detach().clone() for name, p in twin.named_parameters()}
    twin.train()
    step = make_step(twin, LEARNING_RATE)
    first, second = step(batch).item(), step(batch).item()
    assert np.isfinite([first, second]).all()
    assert abs(first - calm) > 1e-3 and abs(first - second) > 1e-3
    for name, parameter in twin.named_parameters():
        assert not torch.equal(parameter, before[name]), name


@MODELS
def test_the_twin_is_one_graph_to_a_compiler(model, monkeypatch):
    """As torch.compile takes it; what it would compile is run as it is, which takes no minutes."""
    compiled = functools.partial(torch.compile, backend="eager")
    monkeypatch.setattr(torch, "compile", compiled)
    batch = torch_batch(arrays_of(model))
    for half in (None, torch.bfloat16):
        twin = make_twin(model)
        expected = total_loss(twin, batch, half).item()
        loss = make_step(twin, LEARNING_RATE, half, compiled=True)(batch).item()
        assert loss == pytest.approx(expected, rel=1e-4)
        twin.train()
        assert np.isfinite(make_step(twin, LEARNING_RATE, half, compiled=True)(batch).item())


def test_autocast_gives_the_losses_in_single_precision():
    twin, batch = make_twin(AUDIO), torch_batch(arrays_of(AUDIO))
    single, half = (total_loss(twin, batch, dtype) for dtype in (None, torch.bfloat16))
    assert half.dtype == torch.float32
    assert half.item() != single.item() and half.item() == pytest.approx(single.item(), rel=0.05)


def test_the_twin_attends_by_pytorchs_own_product_in_training(monkeypatch):
    """`scaled_dot_product_attention`, dropout included: no weights are kept."""
    called = []
    attend = torch.nn.functional.scaled_dot_product_attention

    def watched(*args, **kwargs):
        called.append(args[4] if len(args) > 4 else kwargs["dropout_p"])
        return attend(*args, **kwargs)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watched)
    total_loss(make_twin(VISUAL).train(), torch_batch(arrays_of(VISUAL)))
    # 22 tokens in four segments of two lengths, in two, in one; then the decoder, which does twice.
    assert len(called) == 2 + 1 + 1 + 2 and set(called) == {0.1}


def test_the_twins_steps_are_switched_as_on_a_walk_from_left_to_right():
    torch.manual_seed(0)
    draws = torch.rand(20, 15) < 0.6
    for order, draw in zip(switched_order(draws).tolist(), draws.tolist(), strict=True):
        expected, i = list(range(16)), 0
        while i < 15:
            if draw[i]:
                expected[i], expected[i + 1] = i + 1, i
            i += 2 if draw[i] else 1
        assert order == expected


FULL = pytest.mark.parametrize(
    ("variant", "parameters"), [("visual", 44_299_574), ("full", 168_372_918)]
)


@pytest.mark.slow
@FULL
def test_at_full_size_the_twin_predicts_what_ours_does(variant, parameters):
    model = settings_of(load_config(f"configs/astra.py:{variant}")).model
    twin = make_twin(model)
    assert sum(p.numel() for p in twin.parameters()) == parameters
    assert_same_predictions(params_of(twin, model), twin, model, clips=1)
    params = ASTRA(model).initial_params(1)
    twin.load_state_dict(to_state_dict(params, model), strict=True)
    assert_same_predictions(params, twin, model, clips=1)
