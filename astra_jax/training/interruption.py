"""Ending a run in good order when it is told to: SIGTERM of a cluster, Ctrl-C of a person."""

import contextlib
import itertools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from signal import Signals

import jax
from jax.experimental import multihost_utils

from astra_jax.errors import Interrupted

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
# Before a process ends at once: a loading process that is just being sent what it is to do would
# say that it was cut short.
_GRACE_SECONDS = 0.2

# Over all runs of this process: JAX ends the processes at a count that none has reached yet, and
# what was told between two runs would be lost to one that counts from 1 again.
_times_asked = itertools.count(1)


class Interruption:
    """Whether this run has been told to end.

    Within `watch()` the first signal ends the process at once, as long as there is nothing to
    save; from `defer()` on it is only noted, and `asked` and `check` tell. The second one ends the
    process in any case.

    A thread takes the signals: Python's own handlers wait for the end of a compilation, and an
    exception out of one, in the middle of JAX, has crashed the process.

    Several processes have to end after the same step: there JAX's handler of SIGTERM tells all of
    them, and Ctrl-C is made a SIGTERM.
    """

    def __init__(
        self,
        at_once: Callable[[], None] = lambda: None,
        goes_on: bool = True,
        tell: Callable[[str], None] = lambda line: None,
    ) -> None:
        """`at_once` is called before the process ends at once.

        `goes_on`: whether the same command again goes on, as a training does. `tell` gets what is
        said on the terminal, in the thread that takes the signals: it must wait for no other one.
        """
        self._at_once, self._goes_on, self._tell = at_once, goes_on, tell
        self._noted: int | None = None
        self._deferring = False
        self._deciding = threading.Lock()

    @contextlib.contextmanager
    def watch(self) -> Iterator[None]:
        """Takes the signals until it is left; only Python's main thread can."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        signals = _SIGNALS if jax.process_count() == 1 else (signal.SIGINT,)
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        before = {number: signal.signal(number, lambda *_: None) for number in signals}
        descriptor = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        watcher = threading.Thread(target=self._watch, args=(reading,), daemon=True)
        watcher.start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(descriptor)
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(writing)
            watcher.join()
            os.close(reading)

    def defer(self) -> None:
        """From now on there is something to save: signals are only noted."""
        with self._deciding:
            self._deferring = True

    def _watch(self, reading: int) -> None:
        while byte := os.read(reading, 1):
            number = byte[0]
            if number not in _SIGNALS:
                continue
            if jax.process_count() > 1:
                os.kill(os.getpid(), signal.SIGTERM)
                continue
            with self._deciding:
                if self._noted is not None or not self._deferring:
                    time.sleep(_GRACE_SECONDS)
                    self._at_once()
                    self._say(self._last_words(number))
                    os._exit(128 + number)
                self._noted = number
            self._say("told to end: finishing the step and saving; once more gives that up")

    def _say(self, line: str) -> None:
        _write(line)
        self._tell(line)

    def _last_words(self, number: int) -> str:
        return str(Interrupted(number)) if self._goes_on else f"ended by {Signals(number).name}"

    def asked(self) -> bool:
        """Whether to end after the step just taken; every process must ask after every step."""
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(next(_times_asked))
        return self._noted is not None

    def check(self) -> None:
        """Raises `Interrupted` where a signal was noted; a run of several processes goes on."""
        if self._noted is not None:
            raise self.error()

    def error(self, saved_step: int | None = None) -> Interrupted:
        """What to raise where `asked` said yes."""
        return Interrupted(self._noted or signal.SIGTERM, saved_step)


def _write(line: str) -> None:
    """A line on stderr, but not by print: its buffer may be in use at this very moment."""
    with contextlib.suppress(OSError):  # the reader of a pipe may have got the signal as well
        os.write(2, f"\n{line}\n".encode())
