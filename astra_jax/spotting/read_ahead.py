"""Reading while the devices compute."""

import queue
import threading
from collections.abc import Generator, Iterator
from typing import TypeVar

T = TypeVar("T")

_LOOK_SECONDS = 0.1  # how often a thread that waits for room looks whether it is still wanted


def read_ahead(items: Iterator[T], depth: int) -> Generator[T, None, None]:
    """The same items, drawn by a thread of their own, up to `depth` of them in advance.

    What `items` raises is raised where the item would have come. Closing ends the thread.
    """
    drawn: queue.Queue[tuple[bool, T | BaseException | None]] = queue.Queue(depth)
    closed = threading.Event()

    def put(more: bool, item: T | BaseException | None) -> bool:
        while not closed.is_set():
            try:
                drawn.put((more, item), timeout=_LOOK_SECONDS)
                return True
            except queue.Full:
                continue
        return False

    def draw() -> None:
        try:
            for item in items:
                if not put(True, item):
                    return
            put(False, None)
        except BaseException as error:  # noqa: BLE001 - the other thread raises it
            put(False, error)

    thread = threading.Thread(target=draw, name="read ahead", daemon=True)
    thread.start()
    try:
        while True:
            more, item = drawn.get()
            if isinstance(item, BaseException):
                raise item
            if not more:
                return
            yield item  # type: ignore[misc]
    finally:
        closed.set()
        thread.join()
