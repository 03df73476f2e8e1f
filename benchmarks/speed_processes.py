"""Processes of a benchmark: their environment, those of speed_worker.py, and why one ended."""

import contextlib
import dataclasses
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from speed_steps import Request

_WORKER = Path(__file__).parent / "speed_worker.py"
_ERROR = re.compile(r"[\w.]+(Error|Exception|Interrupt): ")
_LONGEST = 300


class Failed(Exception):
    """A process ended before its time; the message is one line."""


class Worker:
    """A process of speed_worker.py. `told`: what it said when it was ready, `seconds` after."""

    def __init__(
        self, process: subprocess.Popen[str], said: IO[str], request: Request, started: float
    ) -> None:
        self._process, self._said = process, said
        self._name = f"{request.framework}, {request.mode}"
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
            self._said.seek(0)
            raise Failed(f"{self._name}: {why_it_ended(code, self._said.read())}")
        return json.loads(answer)


def why_it_ended(code: int, said: str) -> str:
    """In a line: a process's exit code, and the last error of what it said on stderr.

    All that it said is said again.
    """
    sys.stderr.write(said)
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if _ERROR.match(line)]
    reason = (errors or lines or ["nothing said"])[-1][:_LONGEST]
    return f"ended with code {code}: {'killed, out of memory?' if code == -9 else reason}"


def environment(device: str, cache: Path | None = None) -> dict[str, str]:
    """Variables of a process on a device; `cache`: where PyTorch keeps what it compiles."""
    found = os.environ | {
        # PyTorch computes on the CPU unless told otherwise; so does JAX then.
        "JAX_PLATFORMS": "cpu" if device == "cpu" else "cuda",
        # So that several processes share a GPU, and its peak of memory is what is used.
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        # So that a traceback's last line says what is wrong.
        "JAX_TRACEBACK_FILTERING": "off",
    }
    if cache is not None:
        found["TORCHINDUCTOR_CACHE_DIR"] = str(cache)
    return found


@contextlib.contextmanager
def working(request: Request, cache: Path | None = None) -> Iterator[Worker]:
    """A worker that has taken its first step; it ends with the block. Raises Failed."""
    started = time.perf_counter()
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as said,
        subprocess.Popen(
            [sys.executable, str(_WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            env=environment(request.device, cache),
        ) as process,
    ):
        try:
            yield Worker(process, said, request, started)
        finally:
            process.kill()
