"""The environment of processes that a test starts."""

import os
import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
"""Of the checkout."""


def environment(compiled: Path, **variables: str) -> dict[str, str]:
    """This process's, the checkout and its tests importable, and `variables`.

    Programs are compiled once, into `compiled`.
    """
    return os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(compiled),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
        "PYTHONPATH": os.pathsep.join([str(TESTS), str(ROOT)]),
        **variables,
    }


def flags(devices: int) -> str:
    """The XLA_FLAGS of this process, but for so many simulated devices."""
    others = re.sub(r"--xla_force_host_platform_device_count=\d+", "", os.environ["XLA_FLAGS"])
    return f"--xla_force_host_platform_device_count={devices} {others.strip()}"
