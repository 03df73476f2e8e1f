"""A run with JAX's 64-bit mode enabled (JAX_ENABLE_X64=1, or in a notebook) is the same run."""

import signal
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from helpers.faults import COMPONENTS, at_step, command, latest, tell, undisturbed
from helpers.kills import end_faults
from helpers.processes import environment
from helpers.runs import contents
from helpers.tiny import write_data

from astra_jax import runs
from astra_jax.cli.main import main
from astra_jax.devices import in_32_bits

STOPPED = """
import signal, sys
import jax
from helpers.faults import at_step, tell
from astra_jax.cli.main import main

assert jax.config.jax_enable_x64
sys.exit(main({arguments!r}, at_step(5, lambda: tell(signal.SIGTERM))))
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def whole(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return undisturbed(root, tmp_path_factory.mktemp("whole") / "run")


def test_a_run_of_a_shell_with_64_bits_goes_on_without_them_to_the_same_end(
    root, whole, tmp_path, compiled_folder
):
    workdir = tmp_path / "run"
    done = subprocess.run(
        [sys.executable, "-c", STOPPED.format(arguments=command(root, workdir))],
        env=environment(compiled_folder, JAX_ENABLE_X64="1"),
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 143, done.stderr
    assert latest(workdir) == [3, 5]  # with a validation after step 3
    assert main(command(root, workdir), COMPONENTS) == 0
    assert end_faults(workdir, whole) == []


def test_a_run_goes_on_with_64_bits_to_the_same_end_and_scores(root, whole, tmp_path):
    workdir, told = tmp_path / "run", at_step(5, lambda: tell(signal.SIGTERM))
    assert main(command(root, workdir), told) == 143
    with jax.enable_x64(True):
        assert main(command(root, workdir), COMPONENTS) == 0
        runs.evaluate(workdir, "test", tmp_path / "out", components=COMPONENTS)
    assert end_faults(workdir, whole) == []
    runs.evaluate(whole, "test", tmp_path / "expected", components=COMPONENTS)
    found, expected = (contents(tmp_path / out) for out in ("out", "expected"))
    assert found.keys() == expected.keys() and "metrics.json" in found
    for name in found.keys() - {"provenance.json"}:
        assert found[name][0] == expected[name][0]


def test_64_bits_are_off_within_and_as_they_were_after():
    @in_32_bits
    def enabled(answer: int, more: int = 0) -> tuple[bool, int]:
        return bool(jax.config.jax_enable_x64), answer + more

    with jax.enable_x64(True):
        assert enabled(2, more=1) == (False, 3)
        assert jax.config.jax_enable_x64
    assert enabled(1) == (False, 1)
