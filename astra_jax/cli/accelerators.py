"""An accelerator that lies idle, or that JAX was told to compute on and can't."""

import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import jax

from astra_jax.errors import UserError

_log = logging.getLogger(__name__)

# Cloud TPU machines set some of these; without one, /dev/vfio may serve any other device.
_TPU_VARIABLES = ("TPU_LIBRARY_PATH", "TPU_NAME", "TPU_ACCELERATOR_TYPE", "TPU_WORKER_ID")
_FAILED = "backend failed to initialize"
_LONGEST = 300
# The extra of this package that brings a platform of JAX_PLATFORMS.
_EXTRAS = {"cuda": "cuda", "gpu": "cuda", "tpu": "tpu"}


def warn_of_unused(root: Path = Path("/"), environment: Mapping[str, str] = os.environ) -> None:
    """One warning where this machine has an accelerator that JAX does not use.

    Call it before anything else asks JAX for its devices: JAX's own warning, which is then given,
    is left out. `root` and `environment`: as in `find_unused`.

    Raises:
        UserError: JAX finds no device of the kind that JAX_PLATFORMS asks for, or fails to start.
    """
    jaxs = logging.getLogger("jax._src.xla_bridge")
    kept = _Kept()
    jaxs.addFilter(kept)
    try:
        on_cpu = jax.default_backend() == "cpu"
    except (RuntimeError, AssertionError) as error:
        raise UserError(refusal(str(error), environment.get("JAX_PLATFORMS", ""))) from error
    finally:
        jaxs.removeFilter(kept)
    if (
        on_cpu
        and jax.process_index() == 0
        and (found := find_unused(root, environment)) is not None
    ):
        _log.warning(line(*found, kept.said))


def line(name: str, extra: str, said: str = "") -> str:
    """The warning: what is here, and the mend. `said`: JAX's own words."""
    mend = _install(extra)
    if _FAILED in said:  # installed, but broken
        mend = " ".join(said.split())[:_LONGEST]
    return f"{name} is here but JAX computes on the CPU: {mend}; to mean it: JAX_PLATFORMS=cpu"


def refusal(said: str, platforms: str) -> str:
    """The error where JAX can't start, in its own words `said`; `platforms`: JAX_PLATFORMS."""
    # Not its advice, which is to let it choose.
    words = " ".join(said.split()).partition(" (set JAX_PLATFORMS")[0][:_LONGEST].rstrip(".")
    if not platforms:
        return f"JAX can't start: {words}; to compute on the CPU: JAX_PLATFORMS=cpu"
    extras = [_EXTRAS[name] for name in platforms.lower().split(",") if name in _EXTRAS]
    install = f"{_install(extras[0])}, or " if extras else ""
    why = words or "it finds no such device"
    return (
        f"JAX_PLATFORMS={platforms}: JAX can't use it here: {why}; {install}set it to cpu, or "
        "leave it out for what there is"
    )


def _install(extra: str) -> str:
    return f"pip install 'astra-jax[{extra}]' (in a checkout: pip install -e '.[{extra}]')"


def find_unused(
    root: Path = Path("/"), environment: Mapping[str, str] = os.environ
) -> tuple[str, str] | None:
    """What is here beside the CPU, and the extra of this package that serves it; None: nothing.

    Also None where the user chose the platform (JAX_PLATFORMS) or hides the GPUs
    (CUDA_VISIBLE_DEVICES empty or -1). `root` is where `dev/` lies.
    """
    if environment.get("JAX_PLATFORMS"):
        return None
    driver = shutil.which("nvidia-smi", path=environment.get("PATH", ""))
    hidden = environment.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    if not hidden and ((root / "dev" / "nvidia0").exists() or driver):
        return "an NVIDIA GPU", "cuda"
    # Linux calls other makers' accelerators /dev/accel/accel0.
    on_pci = (root / "dev" / "vfio").exists() and any(environment.get(v) for v in _TPU_VARIABLES)
    if on_pci or any((root / "dev").glob("accel[0-9]*")):
        return "a TPU", "tpu"
    return None


class _Kept(logging.Filter):
    """Keeps JAX's warning of an accelerator that it does not use to itself."""

    said = ""

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if _FAILED not in message and "may be present on this machine" not in message:
            return True
        self.said = message
        return False
