"""Tensors out of files that PyTorch or safetensors wrote; nothing else in them is ever made.

Both packages are in the extra `torch` and imported when a file is read.
"""

import importlib
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from astra_jax.errors import UserError, one_line

State = Mapping[str, Shaped[np.ndarray, "..."]]


def read_state_dict(path: Path) -> State:
    """The tensors by name in a checkpoint (under `state_dict`) or in a bare state dict.

    A file named `.safetensors` is one of safetensors, any other one of `torch.save`. Of the latter
    only tensors and plain values are read (PyTorch's `weights_only`), mapped into memory where its
    format allows it, so that what nobody looks at, such as the optimiser's part, isn't read.

    Returns:
        Arrays of float32.

    Raises:
        UserError: no such file, a package is missing, the file is damaged, holds objects of other
            kinds, or no state dict.
    """
    path = path.expanduser()
    if not path.is_file():
        raise UserError(f"{path}: no such file; name the file of the published weights")
    read = _read_safetensors if path.suffix == ".safetensors" else _read_torch
    return read(path)


def _read_safetensors(path: Path) -> State:
    package = _package("safetensors.numpy", path)
    try:
        # NumPy knows bfloat16 since JAX told it of it.
        return {name: _float32(array) for name, array in package.load_file(path).items()}
    except OSError:
        raise
    except Exception as error:  # whatever safetensors says of a damaged file
        raise _unreadable(path, error) from error


def _float32(array: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
    return array.astype(np.float32, copy=False)


def _read_torch(path: Path) -> State:
    torch = _package("torch", path)
    with open(path, "rb") as file:
        is_zip = file.read(4) == b"PK\x03\x04"  # not so before PyTorch 1.6
    try:
        with torch.serialization.safe_globals(_numbers_of_numpy()), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old formats, in lines of its own
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
        tensors = _state_dict(content, path, torch)
        return {name: _real(tensor, name, path) for name, tensor in tensors.items()}
    except (OSError, UserError):
        raise
    except Exception as error:  # whatever PyTorch says of a damaged file
        if refused := re.search(r"GLOBAL (\S+)", str(error)):
            raise UserError(
                f"{path}: holds more than tensors and numbers ({refused[1]}), which is never read, "
                "since that could run any program: save the state_dict alone in a file"
            ) from error
        if "weights_only" in str(error):  # it goes on with how to read such a file all the same
            error = ValueError("it is none, or holds more than tensors and numbers")
        raise _unreadable(path, error) from error


def _real(tensor: Any, name: str, path: Path) -> Shaped[np.ndarray, "..."]:
    """A tensor's values as float32."""
    if tensor.is_complex():
        raise UserError(f"{path}: {name} holds complex numbers, which no weight of ours is")
    return tensor.detach().float().numpy()


def _numbers_of_numpy() -> list[Any]:
    """What a NumPy number in a checkpoint (a score, say) is made by, under its old and new name."""
    make: Any = np.float64(0).__reduce__()[0]
    names = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
    kinds = (np.float64, np.float32, np.int64)
    return [np.dtype, *(type(np.dtype(kind)) for kind in kinds), *((make, name) for name in names)]


def _state_dict(content: Any, path: Path, torch: Any) -> Mapping[str, Any]:
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if (
        not isinstance(content, Mapping)
        or not content
        or not all(isinstance(name, str) for name in content)
        or not all(isinstance(value, torch.Tensor) for value in content.values())
    ):
        raise UserError(
            f"{path}: holds no state dict (tensors by name), neither by itself nor under "
            "'state_dict': save one by torch.save(model.state_dict(), FILE)"
        )
    return content


def _package(name: str, path: Path) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            f"{path}: reading it needs the package {name.partition('.')[0]}, which is not "
            "installed: pip install 'astra-jax[torch]'"
        ) from error


def _unreadable(path: Path, error: Exception) -> UserError:
    kind = "safetensors" if path.suffix == ".safetensors" else "torch.save"
    return UserError(
        f"{path}: not readable as a file of {kind} ({one_line(error)}): download or save it again"
    )
