"""How fast the steps of a training follow each other, and how long they wait for their batches."""

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import jax


@dataclass(frozen=True)
class Pace:
    """Seconds in which steps were taken, and how many of them the devices waited for batches."""

    seconds: float = 0.0
    waited: float = 0.0

    def since(self, earlier: "Pace") -> "Pace":
        """What came after an earlier reading of the same stopwatch."""
        return Pace(self.seconds - earlier.seconds, self.waited - earlier.waited)


class Stopwatch:
    """Runs while steps are taken, from the end of the first dispatch on: it has compiled the step.

    A batch was waited for from when the devices had nothing left to compute, not from when it was
    asked for: the loop asks early. Close it at the end.
    """

    def __init__(self) -> None:
        self._seconds, self._waited = 0.0, 0.0
        self._since: float | None = None
        self._idle_from: Future[float] | None = None
        # Looks out for the end of each step, so that the loop itself waits for none.
        self._lookout = ThreadPoolExecutor(1, thread_name_prefix="pace")

    def go_on(self) -> None:
        """An epoch begins; before the first step there is nothing to measure yet."""
        if self._idle_from is not None:
            self._since = time.monotonic()

    def pause(self) -> None:
        """An epoch has ended; what comes before the next one doesn't count."""
        self._seconds, self._since = self.read().seconds, None

    def next_of(self, batches: Iterator[dict[str, Any]]) -> dict[str, Any]:
        """The next batch."""
        asked = time.monotonic()
        batch = next(batches)
        came = time.monotonic()
        if self._idle_from is not None and self._idle_from.done():
            self._waited += max(0.0, came - max(asked, self._idle_from.result()))
        return batch

    def dispatched(self, values: Any) -> None:
        """A step is under way; `values` are there when it ends."""
        self._idle_from = self._lookout.submit(_end_of, values)
        if self._since is None:
            self._since = time.monotonic()

    def read(self) -> Pace:
        """All up to now."""
        running = 0.0 if self._since is None else time.monotonic() - self._since
        return Pace(self._seconds + running, self._waited)

    def close(self) -> None:
        """Ends its thread."""
        self._lookout.shutdown()


def _end_of(values: Any) -> float:
    jax.block_until_ready(values)
    return time.monotonic()
