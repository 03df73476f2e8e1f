"""Whole programs as benchmarks/speed.py measures them: train.py's start and loop, inference."""

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from made_up_matches import settings_of, write_matches
from speed_cases import Case
from speed_processes import Failed, environment, why_it_ended, working
from speed_steps import Request

TRAIN = Path(__file__).parent.parent / "train.py"
INFERENCE = Path(__file__).parent / "speed_inference.py"
MINUTES = {("cpu", "full"): 10}
"""Of the match that is predicted, where 90 take too long."""
MATCHES, HALF_SECONDS = 4, 2700
LOOP_LINES = 5
"""So many lines of `metrics.jsonl` count, after the first one."""


def measure_start(case: Case, device: str, twins: Sequence[Request]) -> dict[str, Any]:
    """Seconds from a process's start to its first step done, what compiles not kept and kept.

    Ours is train.py on four made-up matches with a validation, all of it; the twin's are processes
    that only take a step on an array. `twins`: the requests of their steps.
    """
    found: dict[str, Any] = {"ours": {}}
    with _matches(case) as root:
        cache = root / "cache"
        for kind in ("cold", "warm"):
            with training(case, device, root, root / kind, cache, every_steps=1) as lines:
                found["ours"][kind] = next(lines)["at"]
    for twin in twins:
        with tempfile.TemporaryDirectory() as name:
            found[twin.framework] = {}
            for kind in ("cold", "warm"):
                try:
                    with working(twin, Path(name)) as worker:
                        found[twin.framework][kind] = worker.seconds
                except Failed as error:
                    found[twin.framework] = {"error": str(error)}
                    break
    return found


def measure_loop(case: Case, device: str, repeats: int, bare: Request) -> dict[str, Any]:
    """Clips a second of train.py, by its own `metrics.jsonl`, beside those of its bare step."""
    every = 20 if device == "gpu" else 2
    with _matches(case) as root:
        with training(case, device, root, root / "run", root / "cache", every) as lines:
            counted = [next(lines) for _ in range(LOOP_LINES + 1)][1:]
        with working(bare) as worker:
            seconds = [worker.take(every)["seconds"] for _ in range(repeats)]
    return {
        "clips_per_second": [line["clips_per_second"] for line in counted],
        "seconds_waited": [line["seconds_waited"] for line in counted],
        "bare_clips_per_second": bare.clips / statistics.median(seconds),
        "steps_a_line": every,
    }


def measure_inference(case: Case, device: str) -> dict[str, Any]:
    """Seconds that a match takes from its files to its scores, by benchmarks/speed_inference.py.

    PyTorch's is eager, as that program has it.
    """
    minutes, found = MINUTES.get((device, case.variant), 90), {}
    for framework in ("ours", "torch"):
        command = [sys.executable, str(INFERENCE), "--framework", framework]
        command += ["--config", case.config, "--minutes", str(minutes), "--repeats", "3"]
        command += ["--device", device] if device == "gpu" else []
        done = subprocess.run(command, capture_output=True, env=environment(device), text=True)
        if done.returncode:
            why = why_it_ended(done.returncode, done.stderr)
            found[framework] = {"error": f"{INFERENCE.name}, {framework}: {why}"}
            continue
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        found[framework] = {
            "seconds": [line["seconds"] for line in lines],
            "windows": lines[0]["windows"],
        }
    return {"minutes": minutes, **found}


@contextlib.contextmanager
def _matches(case: Case) -> Iterator[Path]:
    """A folder with made-up matches below `matches`, and the list that names them."""
    with tempfile.TemporaryDirectory(prefix="astra_speed_") as name:
        root = Path(name)
        names = write_matches(
            settings_of(case.config, root / "matches").data, MATCHES, HALF_SECONDS
        )
        (root / "list.txt").write_text("\n".join(names) + "\n")
        (root / "valid.txt").write_text(names[0] + "\n")
        yield root


@contextlib.contextmanager
def training(
    case: Case, device: str, root: Path, workdir: Path, cache: Path, every_steps: int
) -> Iterator[Iterator[dict[str, Any]]]:
    """train.py at work, which ends with the block: the lines of its steps as they come.

    Each says `at` how many seconds from the process's start it was there. Raises Failed.
    """
    workers = min(8, (os.cpu_count() or 1) - 1) if device == "gpu" else 0
    flags = {
        "data.root": root / "matches",
        "data.splits.train": root / "list.txt",
        "data.splits.valid": root / "valid.txt",
        "data.workers": workers,
        "model.dtype": case.dtype,
        "training.batch_size": case.clips,
        "training.log_every_steps": every_steps,
        "training.compilation_cache": cache,
    }
    command = [sys.executable, str(TRAIN), "--config", case.config, "--workdir", str(workdir)]
    command += [f"--config.{key}={value}" for key, value in flags.items()]
    workdir.mkdir(parents=True)
    with open(workdir / "said.txt", "w") as said:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=said, stderr=said, env=environment(device))
        try:
            yield _lines_of_steps(process, workdir, started)
        finally:
            process.kill()
            process.wait()


def _lines_of_steps(
    process: subprocess.Popen[bytes], workdir: Path, started: float
) -> Iterator[dict[str, Any]]:
    metrics, read = workdir / "metrics.jsonl", 0
    while True:
        ended = process.poll() is not None  # before its last lines are read
        texts = metrics.read_text().split("\n")[:-1] if metrics.exists() else []
        at = time.perf_counter() - started
        for line in map(json.loads, texts[read:]):
            if "epoch" not in line:
                yield line | {"at": at}
        read = len(texts)
        if ended:
            said = (workdir / "said.txt").read_text()
            raise Failed(f"train.py: {why_it_ended(process.returncode, said)}")
        time.sleep(0.01)
