"""Files in the published form, made of the recorded models."""

from pathlib import Path

import numpy as np
import pytest
import torch

from astra_jax.cli.main import main
from astra_jax.model import ModelConfig, SourceShape, VGGishConfig

GOLDEN = Path(__file__).parents[1] / "golden"


def golden(name: str) -> dict[str, np.ndarray]:
    """A recording of the published system."""
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as file:
        return dict(file)


def state_of(recorded: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """The state dict of the recorded model."""
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


def published(audio: bool = True) -> ModelConfig:
    """The published model's sizes, as they are read off its shapes."""
    return ModelConfig(
        sources=(SourceShape(50, (2048, 2048, 384, 2048, 2048)),),
        positions=100,
        audio=VGGishConfig(frames=52 * 96) if audio else None,
        dtype="float32_highest",
    )


class Refused:
    """Imports files below a folder: code 2, one line with the words, and nothing is written."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._folder, self._capsys = folder, capsys

    def __call__(self, file: Path, words: tuple[str, ...], *more: str) -> None:
        before = set(self._folder.rglob("*"))
        assert main(["import-torch", str(file), str(self._folder / "out"), *more]) == 2
        out, err = self._capsys.readouterr()
        assert out == "" and err.startswith("error: ") and err.count("\n") == 1, err
        assert [word for word in words if word not in err] == [], err
        assert set(self._folder.rglob("*")) == before
