"""VGGish's AudioSet weights as the start of the audio branch (`config.model.audio.init_from`)."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from astra_jax.errors import UserError
from astra_jax.model import ModelConfig
from astra_jax.torch_import.files import State, read_state_dict
from astra_jax.torch_import.names import (
    CONVOLUTIONS,
    Entry,
    convolutions,
    describe_misfit,
    linear,
    params_of,
    shapes_of,
    wrong_shapes,
)

_KEY = "config.model.audio.init_from"
# The first and the last linear are of another image and another width: they start anew.
_DRAWN = tuple(f"embeddings.{i}.{part}" for i in (0, 4) for part in ("weight", "bias"))
# The port's postprocessing of what comes out of the network.
_NOT_OF_THE_NETWORK = ("pproc.pca_eigen_vectors", "pproc.pca_means")

_log = logging.getLogger(__name__)


def load_vggish(path: Path, params: Any) -> Any:
    """Fresh parameters of an ASTRA with audio, VGGish's convolutions and middle linear from a file.

    The file is a state dict of VGGish's port to PyTorch, `features.{0,3,6,8,11,13}` and
    `embeddings.{0,2,4}`, by `torch.save` or safetensors. As the published model does, the first
    and the last linear start from scratch. The port's preprocessing plays no part: the published
    model gives VGGish 128 bands of decibels, unscaled, and so does ours.

    Args:
        path: of the file.
        params: as `SpottingModel.initial_params` makes them; not changed.

    Returns:
        The same tree, NumPy arrays in the place of what the file holds.

    Raises:
        UserError: the file can't be read, or doesn't fit the model.
    """
    vggish = params["audio"]["vggish"]
    channels = tuple(vggish[f"conv_{i}"]["bias"].shape[0] for i in range(len(CONVOLUTIONS)))
    entries = _entries(channels, vggish["linear_1"]["dense"]["bias"].shape[0])
    taken = params_of(entries, _read(path, entries))
    _log.info(
        "%s: VGGish's six convolutions and its middle linear start from this file, its first and "
        "last linear are drawn",
        path,
    )
    return unflatten_dict({**flatten_dict(params, sep="/"), **taken}, sep="/")


def check_vggish(path: Path, model: ModelConfig) -> None:
    """Finds out whether `load_vggish` can take the file for such a model, which has audio.

    Raises:
        UserError: naming the key and the file: it can't be read, or doesn't fit the model.
    """
    assert model.audio is not None  # `config.check` saw to it
    _read(path, _entries(model.audio.channels, model.audio.hidden))


def _entries(channels: tuple[int, ...], hidden: int) -> list[Entry]:
    """What is taken of the port's tensors."""
    path = "audio/vggish"
    middle = linear("embeddings.2", f"{path}/linear_1", hidden, hidden)
    return convolutions("features", path, channels) + middle


def _read(path: Path, entries: list[Entry]) -> State:
    """The port's tensors, those of `entries` among them with their shapes and finite."""
    try:
        state = read_state_dict(path)
    except UserError as error:
        raise UserError(f"{_KEY}: {error}") from error
    expected = shapes_of(entries)
    shapes = {name: np.shape(array) for name, array in state.items()}
    wrong = wrong_shapes(shapes, expected)
    if misfit := describe_misfit(shapes, expected, wrong, (*_DRAWN, *_NOT_OF_THE_NETWORK)):
        raise UserError(
            f"{_KEY}: {path} is not the state dict of a VGGish with config.model.audio's channels "
            f"and hidden: {misfit}"
        )
    for name in expected:
        if not np.isfinite(state[name]).all():
            raise UserError(f"{_KEY}: {path}: {name} holds NaN or infinite values")
    return state
