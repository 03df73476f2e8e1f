"""Published checkpoints: which files are read, and which tensors fit."""

import math
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from helpers.torch_files import Refused, golden, published, save, state_of

from astra_jax.errors import UserError
from astra_jax.torch_import import from_state_dict
from astra_jax.torch_import.checkpoint import read_sizes
from astra_jax.torch_import.files import read_state_dict
from astra_jax.torch_import.names import Sizes, shapes_of, table_of


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Refused:
    return Refused(tmp_path, capsys)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return save(tmp_path / "model.pth.tar", state_of(golden("forward_visual")))


# What doesn't fit


@pytest.mark.parametrize(("audio", "parameters"), [(False, 44_299_574), (True, 168_372_918)])
def test_the_published_models_tensors_are_those_of_its_number_of_parameters(audio, parameters):
    sizes = Sizes.of(published(audio))
    shapes = shapes_of(table_of(sizes))
    assert sum(math.prod(shape) for shape in shapes.values()) == parameters
    assert read_sizes(shapes) == sizes


def test_all_that_is_missing_left_over_or_of_another_shape_is_named():
    state = {name: tensor.numpy() for name, tensor in state_of(golden("forward_audio")).items()}
    del state["Tencoder.layers.1.norm1.weight"], state["encA"]
    state |= {"backbone.weight": np.zeros(3), "encFB": np.zeros((4, 32))}
    with pytest.raises(UserError) as caught:
        from_state_dict(state)
    assert str(caught.value).endswith(
        "missing: encA, Tencoder.layers.1.norm1.weight; of another shape: encFB (4, 32), not "
        "(5, 32); left over: backbone.weight"
    )


def test_of_another_model_the_first_names_are_listed_and_the_others_counted():
    state = {f"resnet.{i:02}.weight": np.zeros((2, 2)) for i in range(13)}
    with pytest.raises(UserError, match=r"resnet.09.weight and 3 more$") as caught:
        from_state_dict(state)
    assert "missing: encTB, encFB, queries, " in str(caught.value)


def test_a_tensor_that_should_tell_a_size_and_cannot_is_named():
    state = {name: tensor.numpy() for name, tensor in state_of(golden("forward_visual")).items()}
    with pytest.raises(UserError, match=r"shape: queries \(640,\), not 2 axes of at least 1$"):
        from_state_dict(state | {"queries": np.zeros(640)})


def test_heads_that_do_not_divide_the_model_are_refused(refused, checkpoint):
    refused(checkpoint, ("32 columns can't be split over 5 attention heads",), "--heads", "5")


def test_weights_that_are_not_finite_are_refused(refused, tmp_path):
    state = state_of(golden("forward_visual"))
    state["encFB"] = torch.full_like(state["encFB"], torch.nan)
    refused(save(tmp_path / "model.pth.tar", state), ("encFB holds NaN or infinite values",))


# The file


class Program:
    """What a harmful file does when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


class Settings:
    """Something harmless of a class that torch doesn't know."""


def test_a_file_with_more_than_tensors_is_not_unpickled(refused, tmp_path):
    state = state_of(golden("forward_visual"))
    ran = tmp_path / "ran"
    words = ("holds more than tensors and numbers", "never read")
    refused(save(tmp_path / "a.pth", state, more=Program(ran)), words)
    refused(save(tmp_path / "b.pth", state, more=Settings()), (*words, "Settings"))
    torch.save(Program(ran), tmp_path / "c.pth", _use_new_zipfile_serialization=False)
    refused(tmp_path / "c.pth", words)
    assert not ran.exists()


def test_a_file_with_code_is_told_without_advice_to_read_it_all_the_same(refused, tmp_path):
    class Harm:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            return os.system, ("true",)

    refused(save(tmp_path / "a.pth", {}, more=Harm()), ("holds more than tensors", "system"))
    path = tmp_path / "list.pth"
    path.write_bytes(b"\x80\x04\x95\x03\x00\x00\x00\x00\x00\x00\x00]\x94.")  # a pickle: []
    refused(path, ("it is none, or holds more than tensors and numbers",))


@pytest.mark.parametrize("name", ["model.pth", "model.safetensors"])
@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 and no more"])
def test_a_damaged_file_is_one_line(refused, tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, (name, "not readable", "download or save it again"))


def test_a_file_without_a_state_dict_and_one_that_is_not_there(refused, tmp_path):
    torch.save({"epoch": 3, "model": {"a": torch.zeros(2)}}, tmp_path / "other.pth")
    refused(tmp_path / "other.pth", ("holds no state dict",))
    torch.save({1: torch.zeros(2)}, tmp_path / "numbered.pth")
    refused(tmp_path / "numbered.pth", ("holds no state dict",))
    torch.save({"a": torch.zeros(2, dtype=torch.complex64)}, tmp_path / "complex.pth")
    refused(tmp_path / "complex.pth", ("a holds complex numbers",))
    refused(tmp_path / "none.pth", ("none.pth: no such file",))


@pytest.mark.parametrize(
    ("name", "package"),
    [("model.pth", "torch"), ("model.safetensors", "safetensors.numpy")],
)
def test_without_its_package_a_file_says_what_to_install(
    refused, tmp_path, monkeypatch, name, package
):
    (tmp_path / name).touch()
    monkeypatch.setitem(sys.modules, package, None)
    refused(tmp_path / name, (package.split(".")[0], "pip install 'astra-jax[torch]'"))


def test_every_form_of_a_file_gives_the_same_arrays(tmp_path):
    state = {
        "a": torch.nn.Parameter(torch.arange(6.0).reshape(2, 3)),
        "half": torch.ones(2, dtype=torch.bfloat16),
    }
    save(tmp_path / "published.pth.tar", state)
    torch.save(state, tmp_path / "bare.pth")
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    safetensors.torch.save_file(state, tmp_path / "model.safetensors")
    for name in ("published.pth.tar", "bare.pth", "old.pth", "model.safetensors"):
        found = read_state_dict(tmp_path / name)
        assert found["a"].tolist() == [[0, 1, 2], [3, 4, 5]] and found["half"].tolist() == [1, 1]
        assert {array.dtype.name for array in found.values()} == {"float32"}
