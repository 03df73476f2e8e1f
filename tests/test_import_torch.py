"""Published checkpoints: what is read of a file, and the run's folder that becomes of it."""

import dataclasses
import json
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import safetensors.torch
import torch

from astra_jax.cli.main import main
from astra_jax.config.classes import CLASSES
from astra_jax.config.defaults import paper
from astra_jax.config.saved import differences, from_json
from astra_jax.errors import UserError
from astra_jax.model.config import AudioConfig, ModelConfig, SourceConfig
from astra_jax.runs.import_torch import config_of
from astra_jax.runs.listing import read_run
from astra_jax.spotting import inference
from astra_jax.torch_import.checkpoint import from_state_dict, read_sizes
from astra_jax.torch_import.files import read_state_dict
from astra_jax.torch_import.names import Sizes, shapes_of, table_of
from astra_jax.training.checkpoints import Checkpoints

pytestmark = pytest.mark.usefixtures("compile_once", "module_on_one_device")
GOLDEN = Path(__file__).parent / "golden"
MATCH = "league/season/A - B"


def golden(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as file:
        return dict(file)


def state_of(recorded: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {
        name.removeprefix("sd/"): torch.from_numpy(array)
        for name, array in recorded.items()
        if name.startswith("sd/")
    }


def save(path: Path, state: dict[str, torch.Tensor], **more: object) -> Path:
    """A file in the published form, its optimiser and a score by NumPy in it."""
    moments = {"exp_avg": torch.zeros(3), "step": 7}
    optimizer = {"state": {0: moments}, "param_groups": [{"lr": 5e-5, "betas": (0.9, 0.999)}]}
    content = {"epoch": 37, "state_dict": state, "best_loss": np.float64(0.66)}
    torch.save(content | {"optimizer": optimizer} | more, path)
    return path


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return save(tmp_path / "model.pth.tar", state_of(golden("forward_visual")))


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., None]:
    """Imports a file: code 2, one line with the words, and nothing is written."""

    def check(file: Path, words: tuple[str, ...], *more: str) -> None:
        before = set(tmp_path.rglob("*"))
        assert main(["import-torch", str(file), str(tmp_path / "out"), *more]) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.startswith("error: ") and err.count("\n") == 1, err
        assert [word for word in words if word not in err] == [], err
        assert set(tmp_path.rglob("*")) == before

    return check


# The folder


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """The recorded model with audio, imported from a file with the mixup's queue in it."""
    folder, recorded = tmp_path_factory.mktemp("imported"), golden("forward_audio")
    queue = {"labelQ": torch.zeros(18, 2, 20, 18), "featBQ": torch.zeros(2)}
    file = save(folder / "model.pth.tar", state_of(recorded) | queue)
    workdir = folder / "runs" / "published"
    assert main(["import-torch", str(file), str(workdir)]) == 0
    return SimpleNamespace(recorded=recorded, workdir=workdir, folder=folder)


def test_an_imported_checkpoint_predicts_matches_as_the_published_model_did(imported, monkeypatch):
    root, recorded = imported.folder / "data", imported.recorded
    (root / MATCH).mkdir(parents=True)
    (root / "list.txt").write_text(f"{MATCH}\n")
    for half in (1, 2):
        rows, power = recorded["features"][half - 1], recorded["mel_power"][half - 1]
        np.save(root / MATCH / f"{half}_baidu_soccer_embeddings.npy", rows)
        np.save(root / MATCH / f"audio{half}.npy", np.ascontiguousarray(power.T))
    seen, land = [], inference.land
    monkeypatch.setattr(inference, "land", lambda p, *a, **k: (seen.append(p), land(p, *a, **k))[1])
    arguments = ["--workdir", str(imported.workdir), "--split", "list.txt"]
    out = imported.folder / "out"
    assert main(["evaluate", *arguments, "--out", str(out), f"--config.data.root={root}"]) == 0
    for half, predictions in enumerate(seen):  # the first window is the recorded clip
        for ours, theirs in (
            (predictions.probabilities, "probs"),
            (predictions.displacement_mean, "displacement_mean"),
            (predictions.displacement_log_variance, "displacement_logvar"),
        ):
            np.testing.assert_allclose(ours[0], recorded[theirs][half], atol=1e-4)
    assert len(seen) == 2 and (out / "results.zip").is_file()


def test_an_imported_folder_says_where_it_is_from(imported):
    told = json.loads((imported.workdir / "provenance.json").read_text())["imported"]
    assert told["file"] == "model.pth.tar" and len(told["sha256"]) == 64
    assert (told["heads"], told["hierarchical"]) == (8, True)
    assert told["packages"]["torch"].startswith("2.")
    assert (imported.workdir / "normalization.json").read_text() == "[null]\n"
    assert read_run(imported.workdir, "published").state == "imported"
    assert [path.name for path in imported.workdir.parent.iterdir()] == ["published"]


def test_imported_weights_are_not_trained_over(imported, capsys):
    config = str(Path(__file__).parent / "helpers" / "tiny.py")
    assert main(["train", "--config", config, "--workdir", str(imported.workdir)]) == 2
    err = capsys.readouterr().err
    assert f"--config.init_from={imported.workdir} and another --workdir" in err
    assert err.count("\n") == 1


def published(audio: bool = True) -> ModelConfig:
    """The published model's sizes, as they are read off its shapes."""
    return ModelConfig(
        sources=(SourceConfig(50, (2048, 2048, 384, 2048, 2048)),),
        positions=100,
        audio=AudioConfig(frames=52 * 96) if audio else None,
        dtype="float32_highest",
    )


def test_the_published_model_has_the_papers_config_in_float32():
    config = config_of(published(), CLASSES)
    assert differences(config, paper()) == ["model.dtype"]
    audio = ModelConfig.from_config(config).audio
    assert (audio.frames, audio.segments) == (5000, 52)


def test_audio_of_another_rate_is_refused():
    with pytest.raises(UserError, match="51 segments of audio, where 52 fit"):
        config_of(dataclasses.replace(published(), audio=AudioConfig(frames=51 * 96)), CLASSES)


def test_a_model_without_audio_uncertainty_and_augmentation(tmp_path):
    state = state_of(golden("train_plain"))
    del state["temporal_dropB.embedding"]
    file = save(tmp_path / "model.pth.tar", state)
    options = ["--heads", "4", "--no-hierarchical"]
    assert main(["import-torch", str(file), str(tmp_path / "out"), *options]) == 0
    config = from_json(tmp_path / "out" / "config.json")
    model = config.model
    assert config.data.audio is None and config.clip.seconds == 10
    assert not model.uncertainty and not model.hierarchical and model.heads == 4
    assert (model.temporal_dropout, model.temporal_switch) == (0, 0)


def test_other_classes_have_the_windows_of_their_names_and_else_the_usual_one(refused, tmp_path):
    state = state_of(golden("forward_visual"))
    for part in ("clas_head.head.4", "displ_head.mean_head.1", "displ_head.logvar_head.1"):
        state |= {f"{part}.{kind}": state[f"{part}.{kind}"][:3] for kind in ("weight", "bias")}
    file = save(tmp_path / "model.pth.tar", state)
    refused(file, ("of 2 classes, but SoccerNet's are 17", "--classes"))
    refused(file, ("of 2 classes, but --classes names are 1",), "--classes", "Goal")
    refused(file, ("every class once",), "--classes", "Goal,Goal")
    assert main(["import-torch", str(file), str(tmp_path / "out"), "--classes", "Goal, Shot"]) == 0
    config = from_json(tmp_path / "out" / "config.json")
    assert config.data.classes == ("Goal", "Shot")
    assert config.inference.suppression.windows_seconds == (9, 8)


def test_a_folder_with_something_in_it_is_refused(refused, checkpoint, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "file").touch()
    refused(checkpoint, (str(tmp_path / "out"), "nothing is written over"))


def test_nothing_is_left_where_the_disk_is_full(refused, checkpoint, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Checkpoints, "save_best", full)
    refused(checkpoint, ("out: No space left on device",))


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
