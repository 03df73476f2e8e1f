"""Ending a run in good order when it is told to: SIGTERM of a cluster, Ctrl-C of a person."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

import jax
from jax.experimental import multihost_utils

from astra_jax.errors import Interrupted

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interruption:
    """Whether this run has been told to end.

    Within `watched()` a signal raises `Interrupted` at once; within `deferred()`, inside that, it
    is only noted, and `asked` and `check` tell. A second signal of the same kind does what it
    does without us.

    Several processes have to end behind the same step: JAX hands SIGTERM on to all of them.
    """

    def __init__(self) -> None:
        self._noted: int | None = None
        self._deferring = False

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Takes the signals until it is left; only Python's main thread can."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        alone = jax.process_count() == 1
        # JAX's own handler of SIGTERM is what tells the other processes.
        taken = _SIGNALS if alone else (signal.SIGINT,)
        before = {number: signal.signal(number, self._handle) for number in taken}
        self._before = before
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Until it is left, signals are only noted."""
        self._deferring = True
        try:
            yield
        finally:
            self._deferring = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        signal.signal(number, self._before[number])
        if jax.process_count() > 1:
            os.kill(os.getpid(), signal.SIGTERM)
            return
        if not self._deferring:
            raise Interrupted(number)
        self._noted = number
        # Not print: its buffer may be in use at this very moment.
        os.write(2, b"\ntold to end: finishing the step and saving; once more gives that up\n")

    def asked(self, step: int) -> bool:
        """Whether to end behind `step`, which every process must ask of every step."""
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self._noted is not None

    def check(self) -> None:
        """Raises `Interrupted` where a signal was noted; a run of several processes goes on."""
        if self._noted is not None:
            raise self.error()

    def error(self, saved_step: int | None = None) -> Interrupted:
        """What to raise where `asked` said yes."""
        return Interrupted(self._noted or signal.SIGTERM, saved_step)
