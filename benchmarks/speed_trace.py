"""Kernels in a trace that JAX's profiler wrote. Imports no framework."""

import gzip
import json
from pathlib import Path

_COPIES = ("Memcpy", "Memset", "memcpy", "memset")


def kernels_of(file: Path, steps: int) -> dict[str, float]:
    """Kernels a step on the streams of all GPUs, and the milliseconds they take; copies aside."""
    events = json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]
    names = {(e["pid"], e.get("tid"), e["name"]): e["args"]["name"] for e in events if _names(e)}
    gpus = {
        pid
        for (pid, _, kind), name in names.items()
        if kind == "process_name" and "/device:GPU" in name
    }
    streams = {
        (pid, thread)
        for (pid, thread, kind), name in names.items()
        if kind == "thread_name" and pid in gpus and name.startswith("Stream")
    }
    kernels = [
        event
        for event in events
        if event.get("ph") == "X"
        and (event["pid"], event["tid"]) in streams
        and not event["name"].startswith(_COPIES)
    ]
    return per_step(len(kernels), sum(event["dur"] for event in kernels) / 1e3, steps)


def per_step(kernels: int, milliseconds: float, steps: int) -> dict[str, float]:
    """Of one step, from those of several."""
    return {"kernels": kernels / steps, "kernel_ms": milliseconds / steps}


def _names(event: dict) -> bool:
    return event.get("ph") == "M" and event.get("name") in ("process_name", "thread_name")
