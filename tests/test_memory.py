"""Memory that runs out is one line that names the keys to turn."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from helpers.runs import LINEAR
from helpers.tiny import write_data

from astra_jax.cli.main import main
from astra_jax.errors import UserError
from astra_jax.runs.memory import EVALUATION, TRAINING, explain_shortage

GPU = "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 12345 bytes.\nBufferAssignment:"


@pytest.mark.parametrize(
    "error",
    [
        jax.errors.JaxRuntimeError(GPU),
        jax.errors.JaxRuntimeError("INTERNAL: CUDA_ERROR_OUT_OF_MEMORY: out of memory"),
        jax.errors.JaxRuntimeError("INTERNAL: Failed to allocate 5 bytes"),
        MemoryError("Unable to allocate 3 GiB"),
        MemoryError(),
    ],
)
def test_a_shortage_is_one_line_with_the_mend(error):
    with pytest.raises(UserError) as caught, explain_shortage(EVALUATION):
        raise error
    message = str(caught.value)
    assert message.startswith("out of memory on cpu (") and "\n" not in message
    assert message.endswith(EVALUATION) and len(message) < 300


@pytest.mark.parametrize("error", [jax.errors.JaxRuntimeError("INTERNAL: other"), KeyError("a")])
def test_another_error_passes_as_it_is(error):
    with pytest.raises(type(error)) as caught, explain_shortage(TRAINING):
        raise error
    assert caught.value is error


def test_an_array_larger_than_any_memory_is_a_shortage():
    with pytest.raises(UserError, match="RESOURCE_EXHAUSTED"), explain_shortage(TRAINING):
        jnp.zeros(1 << 46, jnp.uint8).block_until_ready()


def test_a_step_without_memory_ends_the_training_in_one_line(tmp_path: Path, capsys):
    def step(*args: object) -> None:
        raise jax.errors.JaxRuntimeError(GPU)

    write_data(tmp_path / "data")
    config = ["--config", str(Path(__file__).parent / "helpers" / "tiny.py")]
    places = ["--workdir", str(tmp_path / "run"), f"--config.data.root={tmp_path / 'data'}"]
    components = dataclasses.replace(LINEAR, make_train_step=lambda *args, **kwargs: jax.jit(step))
    assert main(["train", *config, *places], components) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert "12345 bytes" in line
    for key in ("training.batch_size", "training.accumulation_steps", "model.remat"):
        assert key in line
