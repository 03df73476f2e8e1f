"""What benchmarks/input.py measures, on made-up matches: its docstring says what."""

import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from made_up_matches import EVENTS_A_HALF, settings_of, write_matches

from astra_jax.data.annotations import Events
from astra_jax.data.halves import Half
from astra_jax.data.index import index_halves
from astra_jax.data.pipeline import TrainingStream
from astra_jax.runs.settings import Settings

HALF_SECONDS, MATCHES = 2700, 4
MATCHES_AT_THE_START = 300


def many_halves(halves: Sequence[Half]) -> list[Half]:
    """The halves of 300 matches, each with the files of one of `halves` and its own events."""
    rng = np.random.default_rng(1)
    found = []
    for number in range(MATCHES_AT_THE_START):
        for half in halves[:2]:
            times = np.sort(rng.integers(1000 * HALF_SECONDS, size=EVENTS_A_HALF))
            classes = rng.integers(len(half.spec.classes), size=EVENTS_A_HALF)
            events = Events(times, classes, np.ones(EVENTS_A_HALF, bool))
            seconds = half.seconds - number % 200  # halves aren't of one length
            found.append(replace(half, match=f"match {number}", seconds=seconds, events=events))
    return found


@contextlib.contextmanager
def on_cores(count: int) -> Any:
    """So many cores for this thread and all that it starts."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def cpu_of_a_batch(halves: Sequence[Half], settings: Settings, batches: int) -> dict[str, Any]:
    """Milliseconds of CPU a batch in threads on one core: median, least and most of five."""
    stream = TrainingStream(halves, settings.stream)
    found = []
    with on_cores(1), contextlib.closing(stream.batches(0, 100 * batches)) as taken:
        for _ in range(10):
            batch = next(taken)
        for _ in range(5):
            started = time.process_time()
            for _ in range(batches):
                batch = next(taken)
            found.append(1000 * (time.process_time() - started) / batches)
    size = sum(array.nbytes for array in _leaves(batch))
    return {
        "cpu_ms_a_batch": statistics.median(found),
        "least": min(found),
        "most": max(found),
        "megabytes": size / 1e6,
    }


def _leaves(tree: Any) -> list[Any]:
    if isinstance(tree, dict):
        return [leaf for item in tree.values() for leaf in _leaves(item)]
    if isinstance(tree, tuple | list):
        return [leaf for item in tree for leaf in _leaves(item)]
    return [] if tree is None else [tree]


def clips_a_second(
    halves: Sequence[Half], settings: Settings, workers: int, batches: int
) -> dict[str, Any]:
    """Clips a second that arrive from loading processes: median, least and most of five."""
    stream = TrainingStream(halves, replace(settings.stream, workers=workers))
    clips = settings.stream.batch_size
    found = []
    with on_cores(workers), contextlib.closing(stream.batches(0, 100 * batches)) as taken:
        for _ in range(10 * workers):
            next(taken)
        for _ in range(5):
            started = time.perf_counter()
            for _ in range(batches):
                next(taken)
            found.append(batches * clips / (time.perf_counter() - started))
    return {"clips_a_second": statistics.median(found), "least": min(found), "most": max(found)}


def seconds_to_start(halves: Sequence[Half], settings: Settings, workers: int) -> dict[str, float]:
    """Seconds to make the stream of 300 matches, and until its first and its 50th batch."""
    many = many_halves(halves)
    started = time.perf_counter()
    stream = TrainingStream(many, replace(settings.stream, workers=workers))
    made = time.perf_counter()
    with contextlib.closing(stream.batches(0, stream.steps_per_epoch)) as taken:
        next(taken)
        first = time.perf_counter()
        for _ in range(49):
            next(taken)
        fiftieth = time.perf_counter()
    return {
        "stream_seconds": made - started,
        "first_batch_seconds": first - started,
        "fiftieth_batch_seconds": fiftieth - started,
    }


def measure(config: str, workers: int, starters: int, batches: int) -> dict[str, Any]:
    """All figures of a config."""
    with tempfile.TemporaryDirectory(prefix="astra_input_") as name:
        settings = settings_of(config, Path(name), **{"data.workers": 0})
        halves = index_halves(settings.data, write_matches(settings.data, MATCHES, HALF_SECONDS))
        for _ in TrainingStream(halves, settings.stream).batches(0, 20):  # into the page cache
            pass
        return {
            "one core": cpu_of_a_batch(halves, settings, batches),
            f"{workers} processes": clips_a_second(halves, settings, workers, batches),
            f"start, {starters} processes": seconds_to_start(halves, settings, starters),
        }
