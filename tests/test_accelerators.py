"""Which accelerator lies idle, and the one line that says so."""

import logging
from collections.abc import Callable
from pathlib import Path

import jax
import pytest

from astra_jax.cli.accelerators import find_unused, line, warn_of_unused

GPU, TPU = ("an NVIDIA GPU", "cuda"), ("a TPU", "tpu")


@pytest.mark.parametrize(
    ("devices", "environment", "expected"),
    [
        ([], {}, None),
        (["null", "vfio/1"], {}, None),
        (["nvidia0"], {}, GPU),
        (["nvidia0"], {"CUDA_VISIBLE_DEVICES": "0,1"}, GPU),
        (["nvidia0"], {"JAX_PLATFORMS": ""}, GPU),
        (["nvidia0"], {"JAX_PLATFORMS": "cpu"}, None),
        (["nvidia0"], {"CUDA_VISIBLE_DEVICES": "-1"}, None),
        (["nvidia0"], {"CUDA_VISIBLE_DEVICES": ""}, None),
        (["accel0"], {}, TPU),
        (["accel0"], {"JAX_PLATFORMS": "cpu"}, None),
        (["accel/accel0"], {}, None),  # of another maker
        (["vfio/1"], {"TPU_NAME": "pod"}, TPU),
    ],
)
def test_what_is_here_beside_the_cpu(tmp_path, devices, environment, expected):
    for device in devices:
        path = tmp_path / "dev" / device
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    assert find_unused(tmp_path, {"PATH": str(tmp_path), **environment}) == expected


def test_the_drivers_tool_tells_of_a_gpu(tmp_path):
    tool = tmp_path / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text("")
    tool.chmod(0o755)
    assert find_unused(tmp_path, {"PATH": str(tool.parent)}) == GPU


@pytest.fixture
def jax_finds(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lets JAX look for its devices, say `words` as it does, and end on the CPU."""

    def set_up(words: str) -> None:
        def backend() -> str:
            logging.getLogger("jax._src.xla_bridge").warning(words)
            return "cpu"

        monkeypatch.setattr(jax, "default_backend", backend)

    return set_up


@pytest.fixture
def with_gpu(tmp_path: Path) -> Path:
    """The root of a machine that has one."""
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "nvidia0").touch()
    return tmp_path


def test_one_line_takes_the_place_of_jaxs_own(jax_finds, with_gpu, caplog):
    words = "An NVIDIA GPU may be present on this machine, but a CUDA-enabled jaxlib is not"
    jax_finds(words)
    warn_of_unused(with_gpu, {})
    (record,) = caplog.records
    assert record.getMessage() == line(*GPU) and record.levelname == "WARNING"
    assert "an NVIDIA GPU is here" in line(*GPU) and "'astra-jax[cuda]'" in line(*GPU)


def test_a_driver_that_fails_is_quoted(jax_finds, with_gpu, caplog):
    jax_finds("CUDA backend failed to initialize: no\ndriver.(Set TF_CPP)")
    warn_of_unused(with_gpu, {})
    (record,) = caplog.records
    message = record.getMessage()
    assert "failed to initialize: no driver." in message and "pip" not in message


def test_other_words_of_jax_are_heard(jax_finds, tmp_path, caplog):
    jax_finds("something else")
    warn_of_unused(tmp_path, {})
    assert [record.getMessage() for record in caplog.records] == ["something else"]
