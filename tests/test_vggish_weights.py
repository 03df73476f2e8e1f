"""VGGish's AudioSet weights: what a run takes of them, when, and which files it refuses."""

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import optax
import pytest
import torch
from helpers.components import on_one_device
from helpers.models import random_params
from helpers.tiny import TRAIN, VALID, tiny_config, write_data
from ml_collections import ConfigDict

from astra_jax import runs
from astra_jax.cli.main import main
from astra_jax.config import paper
from astra_jax.config.saved import to_json
from astra_jax.devices import host_copy, replicated
from astra_jax.model import SpottingModel
from astra_jax.runs.components import Components
from astra_jax.training.loop import Trainer
from astra_jax.training.packing import pack
from astra_jax.training.state import Progress, TrainState

CHANNELS, HIDDEN, MELS = (2, 3, 4, 4, 5, 6), 7, 16
CONFIG = """
from ml_collections import ConfigDict
import json, pathlib
def get_config():
    from astra_jax.config.saved import from_json
    return from_json(pathlib.Path({path!r}))
"""


def init_state(
    model: SpottingModel, optimizer: Any, seed: int, mesh: Any, **more: Any
) -> TrainState:
    """Drawn by NumPy: nothing is compiled."""
    params = random_params(model, seed)
    counts = (np.zeros(3, np.float32), np.zeros(3, np.int32))
    packed = optimizer.init(pack(params))
    key = np.array([0, seed], np.uint32)
    drawn = TrainState(np.zeros([], np.int32), key, params, packed, *counts, params)
    return jax.device_put(drawn, replicated(mesh))


def port() -> dict[str, torch.Tensor]:
    """A state dict with the port's names; its first and last linear of another shape than ours."""
    made = torch.Generator().manual_seed(0)
    shapes: dict[str, tuple[int, ...]] = {}
    for n, before, after in zip((0, 3, 6, 8, 11, 13), (1, *CHANNELS), CHANNELS, strict=False):
        shapes |= {f"features.{n}.weight": (after, before, 3, 3), f"features.{n}.bias": (after,)}
    for n, before, after in ((0, 9, HIDDEN), (2, HIDDEN, HIDDEN), (4, HIDDEN, 3)):
        shapes |= {f"embeddings.{n}.weight": (after, before), f"embeddings.{n}.bias": (after,)}
    shapes["pproc.pca_means"] = (3, 1)
    return {name: torch.randn(shape, generator=made) for name, shape in shapes.items()}


def with_audio(root: Path, init_from: Path | None) -> ConfigDict:
    config = tiny_config(root)
    with config.ignore_type():
        config.data.audio = {**paper().data.audio, "mels": MELS}
        config.model.audio.channels = CHANNELS
    config.model.audio.hidden = HIDDEN
    config.model.audio.init_from = None if init_from is None else str(init_from)
    config.training.average_decay = 0.9
    return config


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Matches with audio, and VGGish's file."""
    folder = tmp_path_factory.mktemp("vggish")
    root = write_data(folder / "data")
    for match in (TRAIN, VALID):
        for half in (1, 2):
            np.save(root / match / f"audio{half}.npy", np.ones((MELS, 12_001), np.float32))
    torch.save(port(), folder / "vggish.pth")
    return SimpleNamespace(root=root, vggish=folder / "vggish.pth")


def start(config: ConfigDict, workdir: Path) -> list[Any]:
    """Parameters and average of VGGish as a training in `workdir` begins; its state is saved."""
    found: list[Any] = []

    class Beginning(Trainer):
        def run(self) -> Progress:
            self.checkpoints.save_latest(0, self.state, self.progress)
            for tree in (self.state.params, self.state.average):
                found.append(host_copy(tree)["audio"]["vggish"])
            return self.progress

    parts = Components(
        init_state=init_state,
        make_optimizer=lambda *args: optax.identity(),
        make_trainer=Beginning,
    )
    runs.train(config, workdir, components=on_one_device(parts))
    return found


def taken(vggish: Any) -> list[np.ndarray]:
    """What the file gives, in the port's layout."""
    found = [vggish[f"conv_{i}"]["kernel"].transpose(3, 2, 0, 1) for i in range(6)]
    found += [vggish[f"conv_{i}"]["bias"] for i in range(6)]
    return [*found, vggish["linear_1"]["dense"]["kernel"].T, vggish["linear_1"]["dense"]["bias"]]


def in_file() -> list[np.ndarray]:
    state, numbers = port(), (0, 3, 6, 8, 11, 13)
    names = [f"features.{n}.weight" for n in numbers] + [f"features.{n}.bias" for n in numbers]
    names += ["embeddings.2.weight", "embeddings.2.bias"]
    return [state[name].numpy() for name in names]


def test_convolutions_and_the_middle_linear_start_from_the_file(files, tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="astra_jax")
    drawn, _ = start(with_audio(files.root, None), tmp_path / "drawn")
    config, workdir = with_audio(files.root, files.vggish), tmp_path / "taken"
    found, average = start(config, workdir)
    [told] = [record.message for record in caplog.records if str(files.vggish) in record.message]
    assert "first and last linear are drawn" in told
    for vggish in (found, average):
        for ours, theirs in zip(taken(vggish), in_file(), strict=True):
            np.testing.assert_array_equal(ours, theirs)
        for name in ("linear_0", "linear_2"):
            for part in ("kernel", "bias"):
                expected = drawn[name]["dense"][part]
                np.testing.assert_array_equal(vggish[name]["dense"][part], expected)


def test_a_run_that_goes_on_does_not_read_the_file_again(files, tmp_path):
    moved = tmp_path / "vggish.pth"
    moved.write_bytes(files.vggish.read_bytes())
    config = with_audio(files.root, moved)
    before, _ = start(config, tmp_path / "run")
    moved.unlink()
    after, _ = start(config, tmp_path / "run")
    for ours, theirs in zip(taken(after), taken(before), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def no_file(path: Path, config: ConfigDict) -> tuple[str, ...]:
    path.unlink()
    return (str(path), "no such file")


def other_sizes(path: Path, config: ConfigDict) -> tuple[str, ...]:
    config.model.audio.hidden = 8
    return ("of another shape: embeddings.2.weight (7, 7), not (8, 8), embeddings.2.bias (7,)",)


def other_names(path: Path, config: ConfigDict) -> tuple[str, ...]:
    state = port()
    state["features.14.bias"] = state.pop("features.13.bias")
    torch.save(state, path)
    return ("missing: features.13.bias; left over: features.14.bias",)


def not_finite(path: Path, config: ConfigDict) -> tuple[str, ...]:
    torch.save(port() | {"features.0.bias": torch.full((2,), torch.inf)}, path)
    return (str(path), "features.0.bias holds NaN or infinite values")


def no_audio(path: Path, config: ConfigDict) -> tuple[str, ...]:
    config.data.audio = None
    return ("None where data.audio is None",)


@pytest.mark.parametrize("dry", [(), ("--dry-run",)], ids=["train", "dry run"])
@pytest.mark.parametrize("spoil", [no_file, other_sizes, other_names, not_finite, no_audio])
def test_a_file_that_cannot_be_taken_is_one_line_and_no_run_begins(
    files, tmp_path, capsys, spoil, dry
):
    path = tmp_path / "vggish.pth"
    path.write_bytes(files.vggish.read_bytes())
    config = with_audio(files.root, path)
    with config.ignore_type():
        words = spoil(path, config)
    (tmp_path / "config.json").write_text(to_json(config))
    (tmp_path / "own.py").write_text(CONFIG.format(path=str(tmp_path / "config.json")))
    arguments = ["--config", str(tmp_path / "own.py"), "--workdir", str(tmp_path / "run"), *dry]
    assert main(["train", *arguments]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: config.model.audio.init_from: ") and err.count("\n") == 1, err
    assert [word for word in words if word not in err] == [], err
    assert not (tmp_path / "run").exists()
