"""What the terminal says while a person waits: what for, and how long already."""

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Iterator

from astra_jax.devices import is_first_process

QUIET_SECONDS = 3.0
"""What takes no longer than this isn't spoken of."""

_REFRESH_SECONDS = 1.0
_FIRST_LINE_SECONDS = 30.0
_CLEAR = "\r\x1b[K"

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def says_what_takes_long(what: str, since: float | None = None) -> Iterator[None]:
    """Says `what` is being done and for how long already, until it is left.

    A terminal has one line that is written anew each second. Elsewhere a line is said after half a
    minute, one, two, ... `since`: when it began, by `time.monotonic`; None: now.
    """
    began = time.monotonic() if since is None else since
    ended = threading.Event()
    teller = threading.Thread(target=_tell, args=(what, began, ended), daemon=True)
    if is_first_process():
        teller.start()
    try:
        yield
    finally:
        ended.set()
        if teller.ident is not None:
            teller.join()


def _tell(what: str, began: float, ended: threading.Event) -> None:
    """Speaks until it has ended."""
    if ended.wait(QUIET_SECONDS):
        return
    if sys.stderr.isatty():
        while not ended.is_set():
            _write(f"{_CLEAR}{what} ({time.monotonic() - began:.0f} s)")
            ended.wait(_REFRESH_SECONDS)
        _write(_CLEAR)
        return
    due = _FIRST_LINE_SECONDS
    while not ended.wait(max(0.0, due - (time.monotonic() - began))):
        seconds = time.monotonic() - began
        _log.info("%s (%.0f s)", what, seconds)
        while due <= seconds:  # it may have begun long before it is waited for
            due *= 2


def _write(text: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # closed meanwhile
        sys.stderr.write(text)
        sys.stderr.flush()
