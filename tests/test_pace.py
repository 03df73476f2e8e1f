"""How long a training waits for its batches, and how fast its steps follow each other."""

import contextlib
import time
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from astra_jax.training import pace
from astra_jax.training.pace import Pace, Stopwatch


class Clock:
    """A clock that stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


class Step:
    """The values of a step; it ends when it is told to."""

    def __init__(self) -> None:
        self._ended: Future[None] = Future()

    def block_until_ready(self) -> "Step":
        self._ended.result()
        return self

    def end(self, stopwatch: Stopwatch) -> None:
        self._ended.set_result(None)
        idle = stopwatch._idle_from
        assert idle is not None
        idle.result(timeout=10)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(pace, "time", made)
    return made


@pytest.fixture
def stopwatch(clock: Clock) -> Iterator[Stopwatch]:
    with contextlib.closing(Stopwatch()) as made:
        yield made


def slow_batches(clock: Clock, *seconds: float) -> Iterator[dict[str, Any]]:
    """Batches that take so long each."""
    for of_one in seconds:
        clock.now += of_one
        yield {}


def test_a_batch_that_comes_while_the_devices_compute_was_not_waited_for(clock, stopwatch):
    batches, step = slow_batches(clock, 0, 5), Step()
    stopwatch.next_of(batches)
    stopwatch.dispatched(step)
    stopwatch.next_of(batches)
    assert stopwatch.read() == Pace(5, 0)
    step.end(stopwatch)


def test_waiting_begins_where_the_devices_have_nothing_left_to_compute(clock, stopwatch):
    step = Step()

    def batches() -> Iterator[dict[str, Any]]:
        yield {}
        clock.now += 5
        step.end(stopwatch)
        clock.now += 2
        yield {}

    both = batches()
    stopwatch.next_of(both)
    stopwatch.dispatched(step)
    stopwatch.next_of(both)
    assert stopwatch.read() == Pace(7, 2)


def test_waiting_begins_where_the_batch_is_asked_for(clock, stopwatch):
    """What the host did before, with the devices idle, was not the batch's fault."""
    batches, step = slow_batches(clock, 0, 2), Step()
    stopwatch.next_of(batches)
    stopwatch.dispatched(step)
    step.end(stopwatch)
    clock.now += 10
    stopwatch.next_of(batches)
    assert stopwatch.read() == Pace(12, 2)


def test_the_first_step_and_what_is_between_epochs_do_not_count(clock, stopwatch):
    batches, steps = slow_batches(clock, 30, 1, 1), [Step() for _ in range(3)]
    stopwatch.go_on()
    stopwatch.next_of(batches)  # the loader begins
    clock.now += 60  # compiling
    stopwatch.dispatched(steps[0])
    clock.now += 1
    stopwatch.pause()
    steps[0].end(stopwatch)
    clock.now += 1000  # validation
    assert stopwatch.read() == Pace(1, 0)
    stopwatch.go_on()
    for step in steps[1:]:
        stopwatch.next_of(batches)
        stopwatch.dispatched(step)
        clock.now += 1
        step.end(stopwatch)
    assert stopwatch.read() == Pace(5, 2)


def test_the_pace_between_two_readings_is_their_difference():
    assert Pace(7.0, 2.0).since(Pace(3.0, 1.5)) == Pace(4.0, 0.5)


def test_a_closed_stopwatch_leaves_no_thread(stopwatch):
    import threading

    stopwatch.dispatched(())
    stopwatch.close()
    deadline = time.monotonic() + 10
    while any(t.name.startswith("pace") for t in threading.enumerate()):
        assert time.monotonic() < deadline
