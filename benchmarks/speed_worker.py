"""A process that takes steps of one framework when it is told to; benchmarks/speed.py starts it.

The first line of standard input is a request in JSON: "framework" ("ours" or "torch"), "mode"
("train", "forward", or "product" for the matrix product that gives the machine's peak), "config"
(a config file of ours), "sizes" (those of the PyTorch twin) and "clips". When a first, uncounted
step is done, a line of JSON tells what was prepared. Each further line asks for one step, and is
answered with its seconds and the peak of resident memory over all counted steps.
"""

import importlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from twin.sizes import Sizes

PRODUCT_SIZE = 2048

Step = Callable[[], None]
Arrays = dict[str, Any]


def random_batch(sizes: Sizes, clips: int) -> Arrays:
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


def prepare(request: dict[str, Any]) -> tuple[Step, dict[str, Any]]:
    """One step, which ends when its results are there, and what is to be told of it."""
    # The other framework's libraries are not to be in this process.
    name = {"ours": "speed_ours", "torch": "speed_torch"}[request["framework"]]
    framework = importlib.import_module(name)
    if request["mode"] == "product":
        return framework.product(PRODUCT_SIZE)
    sizes = Sizes.from_json(request["sizes"])
    batch = random_batch(sizes, request["clips"])
    return framework.model_step(request["mode"], request["config"], sizes, batch)


def _memory_status(field: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return 1024 * int(line.split()[1])
    raise RuntimeError(f"/proc/self/status has no {field}")


def _answer(**content: Any) -> None:
    print(json.dumps(content), flush=True)


def main() -> None:
    """Takes steps until standard input ends."""
    step, told = prepare(json.loads(sys.stdin.readline()))
    step()
    # The peak from here on: neither preparing nor compiling counts.
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    _answer(**told)
    for _ in sys.stdin:
        started = time.perf_counter()
        step()
        seconds = time.perf_counter() - started
        _answer(seconds=seconds, peak_rss_bytes=_memory_status("VmHWM"))


if __name__ == "__main__":
    main()
