"""A process that takes steps of one framework when it is told to; benchmarks/speed.py starts it.

The first line of standard input is a `Request` in JSON. When a first, uncounted step is done, a
line of JSON tells what was prepared. Each further line asks for `{"steps": n}`, which is answered
with their mean seconds, from the first one's begin to when all results are there, and the peak of
memory so far, or for `{"trace": n}`, which is answered with the kernels of a step.
"""

import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from speed_steps import Framework, Request, Steps
from twin.sizes import Sizes

_MODULES = {"ours": "speed_ours", "torch": "speed_torch", "torch compiled": "speed_torch"}


def random_batch(sizes: Sizes, clips: int) -> dict[str, Any]:
    """Clips of the true shapes by our batches' names, without masks and without meaning."""
    rng = np.random.default_rng(0)
    targets = (clips, sizes.positions, sizes.num_classes + 1)
    audio, log_mel = sizes.audio, None
    if audio is not None:
        frames = (clips, audio.segments * audio.segment_frames, audio.mels)
        log_mel = rng.normal(-40, 15, frames).astype(np.float32)
    return {
        "features": rng.random((clips, sizes.rows, sum(sizes.widths)), np.float32),
        "log_mel": log_mel,
        "class_targets": (rng.random(targets) < 0.05).astype(np.float32),
        "displacements": rng.integers(-6, 7, targets).astype(np.float32),
        "displacement_mask": rng.random(targets) < 0.05,
    }


def prepare(request: Request) -> tuple[Framework, Steps]:
    """The framework of a request, and its steps."""
    # The other framework's libraries are not to be in this process.
    framework: Any = importlib.import_module(_MODULES[request.framework])
    batch = None
    if request.mode != "product":
        batch = random_batch(Sizes.from_json(request.sizes), request.clips)
    return framework, framework.prepare(request, batch)


def host_peak() -> int:
    """The largest resident size of this process, in bytes."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    raise RuntimeError("/proc/self/status has no VmHWM")


def main() -> None:
    """Takes steps until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer

    def answer(**content: Any) -> None:
        print(json.dumps(content), file=answers, flush=True)

    framework, steps = prepare(Request(**json.loads(sys.stdin.readline())))
    steps.take()
    steps.wait()
    # The peak from here on: neither preparing nor compiling counts.
    framework.forget_peak()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    answer(**steps.told)
    for line in sys.stdin:
        question = json.loads(line)
        if "trace" in question:
            answer(**framework.count_kernels(steps, question["trace"]))
            continue
        started = time.perf_counter()
        for _ in range(question["steps"]):
            steps.take()
        steps.wait()
        seconds = (time.perf_counter() - started) / question["steps"]
        peak = framework.peak_bytes()
        answer(seconds=seconds, peak_bytes=host_peak() if peak is None else peak)


if __name__ == "__main__":
    main()
