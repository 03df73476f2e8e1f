"""Which accelerator lies idle, or isn't there, and the one line that says so."""

import importlib.util
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import pytest
from helpers.processes import ROOT, environment
from helpers.runs import refused

from astra_jax.cli.accelerators import find_unused, line, refusal, warn_of_unused

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


# What JAX 0.10 raises: of a GPU that isn't there, it says nothing.
UNKNOWN = "Unable to initialize backend '{}': Backend '{}' is not in the list of known backends"


@pytest.mark.parametrize(
    ("platforms", "error", "words"),
    [
        ("cuda", AssertionError(), ("JAX_PLATFORMS=cuda", "no such device", "'astra-jax[cuda]'")),
        ("gpu", RuntimeError(UNKNOWN.format("rocm", "rocm")), ("=gpu", "'astra-jax[cuda]'")),
        ("tpu,cpu", RuntimeError("no\nlibtpu.so"), ("=tpu,cpu", "no libtpu.so", "astra-jax[tpu]")),
        (
            "nonsense",
            RuntimeError(UNKNOWN.format(*["nonsense"] * 2)),
            ("=nonsense", "known", "cpu"),
        ),
        ("", RuntimeError("a plugin fails"), ("a plugin fails", "JAX_PLATFORMS=cpu")),
    ],
)
def test_a_platform_that_jax_cannot_use_is_one_line(monkeypatch, platforms, error, words):
    def backend() -> str:
        raise error

    monkeypatch.setattr(jax, "default_backend", backend)
    filters = logging.getLogger("jax._src.xla_bridge").filters.copy()
    with refused(*words) as raised:
        warn_of_unused(environment={"JAX_PLATFORMS": platforms})
    assert logging.getLogger("jax._src.xla_bridge").filters == filters
    assert ("pip" in str(raised.value)) == any(name in platforms for name in ("cuda", "gpu", "tpu"))


def test_jaxs_own_advice_is_left_out():
    said = "Unable to initialize backend 'tpu': no (set JAX_PLATFORMS='' to choose)"
    assert "JAX_PLATFORMS=''" not in refusal(said, "tpu")


@pytest.mark.skipif(
    any(importlib.util.find_spec(f"jax_cuda{version}_plugin") for version in (12, 13)),
    reason="JAX can use a GPU here",
)
def test_every_command_that_computes_refuses_a_platform_without_its_plugin(tmp_path):
    demo = ["train", "--config", str(ROOT / "configs" / "demo.py"), "--workdir", "run"]
    evaluation = ["evaluate", "--workdir", "run", "--split", "test", "--out", "out"]
    commands = [
        demo,
        [*demo, "--dry-run"],
        [*demo, "--seeds", "1,2"],
        evaluation,
        ["import-torch", "file", "imported"],
        ["runs", "."],  # needs no JAX
        [*demo, "--distributed"],
    ]
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    code = (
        "import sys; from astra_jax.cli import main\n"
        f"for command in {commands!r}: print(main(command), flush=True)\n"
        "import logging; print(logging.getLogger('astra_jax').handlers)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(
            tmp_path,
            JAX_PLATFORMS="cuda",
            JAX_COORDINATOR_ADDRESS=address,
            JAX_NUM_PROCESSES="1",
            JAX_PROCESS_ID="0",
        ),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
    )
    codes = [int(line) for line in done.stdout.splitlines() if line.isdigit()]
    assert codes == [2, 2, 2, 2, 2, 0, 2], done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
    said = done.stderr.splitlines()
    assert len(said) == 6, done.stderr
    for words in said:
        assert words.startswith("error: JAX_PLATFORMS=cuda: ") and "'astra-jax[cuda]'" in words
    assert os.listdir(tmp_path) == []
