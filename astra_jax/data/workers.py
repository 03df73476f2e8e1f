"""Loading processes: how they start, and how they end without a word of their own."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing import resource_tracker

import jax

_SILENT = "ignore:resource_tracker:UserWarning"


def start_tracker() -> None:
    """Starts multiprocessing's resource tracker, where it doesn't run yet, as one that is silent.

    It removes the semaphores and the shared memory that are left at the end: of a process that
    ends at once, and of the last batches, which grain's own threads come too late for. Nothing
    stays behind then, so what it would say of "leaked objects" is no news to anybody.
    """
    sys.warnoptions.append(_SILENT)  # handed on to the Python that it is
    try:
        resource_tracker.ensure_running()
    finally:
        sys.warnoptions.remove(_SILENT)


@contextlib.contextmanager
def starting() -> Iterator[None]:
    """What starts loading processes is done in here, so that they don't hear of Ctrl-C.

    Ctrl-C goes to every process of a terminal, and one that is still importing (`prepare` comes
    after that) would answer it with a traceback. A signal that is blocked in this thread is
    blocked in all that it starts; other threads of this process still take it.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def prepare(training: int, worker_index: int, worker_count: int) -> None:
    """Loading needs no device, Ctrl-C is the training's to answer, and its end is ours.

    `training`: its process, which may have ended before this one came so far.
    """
    del worker_index, worker_count
    threading.Thread(target=_end_with, args=(training,), daemon=True).start()
    # A worker that opened a device would take it from the training.
    jax.config.update("jax_platforms", "cpu")
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _end_with(parent: int) -> None:
    """Ends this process when the one that started it has ended, by whatever signal."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
