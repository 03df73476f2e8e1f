"""What a command does before it computes: joins the other hosts, says what goes to the terminal."""

import contextlib
import ctypes
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import jax

from astra_jax.cli import accelerators
from astra_jax.devices import is_first_process
from astra_jax.errors import UserError

_NOWHERE = logging.NullHandler()
_VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


# Parameters of glibc's mallopt.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


def keep_freed_memory() -> None:
    """Lets this process keep the large blocks of memory that it frees, where glibc rules.

    XLA on a CPU takes the buffers of a step anew each time. glibc hands blocks of this size
    back to the system, and getting them again costs a page fault every 4 kB: a quarter to a
    third of the CPU time of a small model's step.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # another system, another C library
        return
    mallopt(_MMAP_MAX, 0)
    mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(_ARENA_MAX, 1)


def join_hosts() -> None:
    """Joins the processes of one run; call it before JAX is used.

    Where they find each other is read from JAX_COORDINATOR_ADDRESS (host:port of process 0),
    JAX_NUM_PROCESSES and JAX_PROCESS_ID; where none of them is set JAX asks the cluster (TPU
    pods, Slurm, Open MPI, Kubernetes).

    Raises:
        UserError: only some of the three are set, one is no number, or there is no cluster.
    """
    given = {name: os.environ[name] for name in _VARIABLES if os.environ.get(name)}
    if given and len(given) < len(_VARIABLES):
        missing = ", ".join(name for name in _VARIABLES if name not in given)
        raise UserError(f"--distributed: {missing} not set: set all of {', '.join(_VARIABLES)}")
    try:
        if not given:
            jax.distributed.initialize()
            return
        address, count, index = (given[name] for name in _VARIABLES)
        jax.distributed.initialize(address, int(count), int(index))
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"--distributed: {error}: set {', '.join(_VARIABLES)} for every process"
        ) from error


@contextlib.contextmanager
def messages() -> Iterator[None]:
    """The package's messages as plain lines on stderr, once for all processes.

    What Orbax and Grain say of their own business is left out (a run's log has it): an error of
    theirs that matters is raised, but some of their threads tell of it as well, once a file.

    Raises:
        UserError: JAX can't compute on what JAX_PLATFORMS names.
    """
    ours = logging.getLogger("astra_jax")
    handler = logging.StreamHandler(sys.stderr)
    before = ours.level, ours.propagate
    # To the end of the process: their threads outlive what they are at.
    for name in ("absl", "asyncio", "concurrent.futures"):
        logging.getLogger(name).propagate = False
        logging.getLogger(name).addHandler(_NOWHERE)
    # What was still to be written when a checkpoint failed: the error itself is raised.
    warnings.filterwarnings("ignore", "coroutine '.*' was never awaited", RuntimeWarning)
    ours.addHandler(handler)
    # A library may have given the root logger a handler of its own.
    ours.propagate = False
    try:
        accelerators.warn_of_unused()
        ours.setLevel(logging.INFO if is_first_process() else logging.ERROR)
        with _without_threads_errors():
            yield
    finally:
        ours.removeHandler(handler)
        ours.level, ours.propagate = before


@contextlib.contextmanager
def _without_threads_errors() -> Iterator[None]:
    """Leaves out what the threads that read and write checkpoints say when one of them has failed.

    The error itself is raised; the others' reads or writes end with no one to tell, each by a
    traceback: that their event loop is closed, or that a second file can't be read either.
    """
    before = sys.unraisablehook

    def show(unraisable: Any) -> None:
        code = getattr(unraisable.object, "cr_code", None)  # a coroutine's
        of_orbax = code is not None and f"{os.sep}orbax{os.sep}" in code.co_filename
        if not of_orbax and str(unraisable.exc_value) != "Event loop is closed":
            before(unraisable)

    sys.unraisablehook = show
    try:
        yield
    finally:
        sys.unraisablehook = before
