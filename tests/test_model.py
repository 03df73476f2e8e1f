"""The whole model: its sizes, what it puts out, and in which precision."""

import dataclasses
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.models import (
    SMALL,
    predict,
    random_inputs,
    random_params,
    settings_of,
    shapes_of,
)

from astra_jax.config import paper
from astra_jax.errors import UserError
from astra_jax.model import ASTRA, SourceShape, VGGishConfig, count_parameters
from astra_jax.model.interface import example_inputs

HIGHEST = "precision=(Precision.HIGHEST, Precision.HIGHEST)"


def small(**changes):
    return dataclasses.replace(SMALL, **changes)


def outputs(config, clips):
    """Shapes and types of what is predicted, by name."""
    apply = partial(ASTRA(config).apply, inputs=random_inputs(config, clips))
    params = {"params": shapes_of(ASTRA(config))}
    return jax.eval_shape(lambda params: vars(apply(params)), params)


@pytest.mark.parametrize(("audio", "parameters"), [(False, 44_299_574), (True, 168_372_918)])
def test_the_papers_model_has_its_number_of_parameters(audio, parameters):
    config = paper()
    if not audio:
        with config.ignore_type():
            config.data.audio = None
    assert count_parameters(shapes_of(ASTRA(settings_of(config).model))) == parameters


def test_the_papers_config_has_the_papers_sizes():
    config = settings_of(paper()).model
    assert config.sources == (SourceShape(50, (2048, 2048, 384, 2048, 2048)),)
    assert (config.positions, config.audio.segments, config.audio.image) == (100, 52, (6, 8))


@pytest.mark.parametrize("positions", [7, 20, 33])
def test_output_positions_are_free_of_the_inputs_length(positions):
    out = outputs(small(positions=positions, encoder_layers=1, decoder_layers=1), 2)
    assert {name: array.shape for name, array in out.items()} == dict.fromkeys(
        ("probabilities", "displacement_mean", "displacement_log_variance"), (2, positions, 18)
    )


def test_a_model_without_uncertainty_has_no_log_variance():
    assert outputs(small(uncertainty=False), 1)["displacement_log_variance"] is None


def test_bfloat16_computes_in_bfloat16_and_answers_in_float32():
    config = small(dtype="bfloat16")
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes_of(ASTRA(config)))} == {
        jnp.dtype("float32")
    }
    params, inputs = random_params(ASTRA(SMALL)), random_inputs(SMALL, 2)
    out, exact = predict(config, params, inputs), predict(SMALL, params, inputs)
    assert out.probabilities.dtype == jnp.float32
    difference = np.abs(out.probabilities - exact.probabilities).max()
    assert 0 < difference < 0.05


def test_every_product_of_the_highest_precision_is_one_of_float32():
    def products(dtype):
        config = small(dtype=dtype)
        apply = partial(ASTRA(config).apply, inputs=random_inputs(config, 1))
        text = str(jax.make_jaxpr(apply)({"params": shapes_of(ASTRA(SMALL))}))
        return text.count("dot_general[") + text.count("conv_general_dilated["), text.count(HIGHEST)

    (count, highest), (_, unasked) = products("float32_highest"), products("float32")
    # Unasked, the last linears of the heads: logits, mean and log variance.
    assert (highest, unasked) == (count, 3) and count > 50


@pytest.mark.parametrize("uncertainty", [True, False])
def test_the_last_linear_of_a_head_is_one_of_float32_whatever_the_rest_computes_in(uncertainty):
    config = small(dtype="bfloat16", uncertainty=uncertainty, shortcut_reach=4.0)
    apply = partial(ASTRA(config).apply, inputs=random_inputs(config, 1))
    text = str(jax.make_jaxpr(apply)({"params": shapes_of(ASTRA(config))}))
    outputs = re.findall(r":f32\[1,20,18\] = dot_general", text)
    # Of classification, displacements, and the shortcut's that is added to the logits.
    assert len(outputs) == (4 if uncertainty else 3) and text.count(HIGHEST) == len(outputs)
    assert not re.search(r":bf16\[1,20,18\]", text)


def test_a_model_in_bfloat16_tells_its_positions_apart():
    """In bfloat16 logits there are some 300 probabilities, and the earliest of equal ones wins."""
    config = small(dtype="bfloat16", shortcut_reach=4.0)
    out = predict(config, random_params(ASTRA(config)), random_inputs(config, 8))
    for array in (out.probabilities, out.displacement_mean, out.displacement_log_variance):
        assert array.dtype == jnp.float32
        assert len(np.unique(array)) > 0.98 * array.size and array.size == 8 * 20 * 18
    largest = out.probabilities.max(axis=1, keepdims=True)
    assert (out.probabilities == largest).sum() == 8 * 18  # no peak is shared


def test_an_unknown_kind_of_codes_is_named():
    with pytest.raises(UserError, match="codes"):
        small(codes="learned")


@pytest.mark.parametrize(
    "changes", [{"heads": 3}, {"audio": VGGishConfig(frames=50)}, {"encoder_layers": 9}]
)
def test_sizes_that_do_not_fit_are_user_errors(changes):
    with pytest.raises(UserError):
        small(**changes)


def test_rates_of_zero_leave_no_learned_vector():
    params = shapes_of(ASTRA(small(temporal_dropout=0.0)))
    assert "dropped_step" not in params["source_0"]
    assert "dropped_step" in shapes_of(ASTRA(SMALL))["audio"]


def test_example_inputs_fit_the_model():
    shapes = jax.tree.map(jnp.shape, example_inputs(SMALL)["features"])
    assert shapes == ((1, 10, 10), (1, 20, 3))
