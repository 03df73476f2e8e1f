"""Processes of speed_worker.py, and what two frameworks' processes take in turn."""

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from speed_steps import Request

_WORKER = Path(__file__).parent / "speed_worker.py"


class Failed(Exception):
    """A process ended before its time; the message is one line."""


class Worker:
    """A process of speed_worker.py. `told`: what it said when it was ready, `seconds` after."""

    def __init__(self, process: subprocess.Popen[str], request: Request, started: float) -> None:
        self._process, self._name = process, f"{request.framework}, {request.mode}"
        self.told = self._ask(dataclasses.asdict(request))
        self.seconds = time.perf_counter() - started

    def take(self, steps: int) -> dict[str, Any]:
        """Takes steps: their mean seconds, the peak of memory so far."""
        return self._ask({"steps": steps})

    def trace(self, steps: int) -> dict[str, Any]:
        """Kernels a step and their milliseconds."""
        return self._ask({"trace": steps})

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it is dead: the answer is empty
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            code = self._process.wait()
            hint = ": out of memory?" if code == -9 else ""
            raise Failed(f"the process of {self._name} ended with code {code}{hint}")
        return json.loads(answer)


def environment(device: str, cache: Path | None = None) -> dict[str, str]:
    """Variables of a process on a device; `cache`: where PyTorch keeps what it compiles."""
    found = os.environ | {
        # PyTorch computes on the CPU unless told otherwise; so does JAX then.
        "JAX_PLATFORMS": "cpu" if device == "cpu" else "cuda",
        # So that several processes share a GPU, and its peak of memory is what is used.
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }
    if cache is not None:
        found["TORCHINDUCTOR_CACHE_DIR"] = str(cache)
    return found


@contextlib.contextmanager
def working(request: Request, cache: Path | None = None) -> Iterator[Worker]:
    """A worker that has taken its first step; it ends with the block. Raises Failed."""
    started = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, str(_WORKER)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(request.device, cache),
    ) as process:
        try:
            yield Worker(process, request, started)
        finally:
            process.kill()
