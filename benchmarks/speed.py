"""Seconds and memory of a full-size step, ours and PyTorch's: the table of docs/performance.md.

Run:  python benchmarks/speed.py --out runs/speed.json [--cases NAME ...] [--repeats 5]

Four cases of configs/astra.py: a train step and a forward pass, with audio and without, in batches
of 8 clips (4 where two steps of 8 don't fit into 24 GB). Both frameworks, and a product of
2048x2048 matrices by each, take turns in processes of their own (speed_worker.py); medians count.
The file is written after each case, and the same command goes on after the last one. Linux only.
"""

import argparse
import contextlib
import dataclasses
import datetime
import json
import logging
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from speed_ours import settings_of
from speed_worker import PRODUCT_SIZE
from twin.sizes import Sizes

from astra_jax.files import write_atomically

HERE = Path(__file__).parent
CONFIG = HERE.parent / "configs" / "astra.py"
CASES = {
    "forward without audio": ("forward", "visual", 8),
    "forward with audio": ("forward", "full", 8),
    "train without audio": ("train", "visual", 8),
    "train with audio": ("train", "full", 4),
}
"""What is measured: the mode, the variant of the config, and clips in a batch."""
FRAMEWORKS = ("ours", "torch")
PACKAGES = ("jax", "jaxlib", "flax", "torch")

_log = logging.getLogger("speed")


class Worker:
    """A process of speed_worker.py. `told`: what it said when it was ready."""

    def __init__(self, process: subprocess.Popen[str], request: dict[str, Any]) -> None:
        self._process, self._name = process, f"{request['framework']}, {request['mode']}"
        self.told = self._ask(request)

    def step(self) -> dict[str, Any]:
        """Takes one step: its seconds, the peak of memory so far."""
        return self._ask({})

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it is dead: the answer is empty
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            code = self._process.wait()
            hint = ": out of memory?" if code == -9 else ""
            raise SystemExit(f"error: the process of {self._name} ended with code {code}{hint}")
        return json.loads(answer)


@contextlib.contextmanager
def working(request: dict[str, Any]) -> Iterator[Worker]:
    """A worker that has taken its first step; it ends with the block."""
    with subprocess.Popen(
        [sys.executable, str(HERE / "speed_worker.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # PyTorch computes on the CPU unless told otherwise; so does JAX then.
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    ) as process:
        try:
            yield Worker(process, request)
        finally:
            process.kill()


def measure(mode: str, config: str, clips: int, repeats: int) -> dict[str, Any]:
    """Both frameworks on one case, in turn: what each repeat took and what it is computed from."""
    sizes = dataclasses.asdict(Sizes.of(settings_of(config).model))
    case = {"mode": mode, "config": config, "sizes": sizes, "clips": clips}
    found: dict[str, Any] = {
        "clips": clips,
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "load_average": os.getloadavg()[0],
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}",
        "versions": {name: metadata.version(name) for name in PACKAGES},
    }
    with contextlib.ExitStack() as stack:
        workers = {}
        for framework in FRAMEWORKS:
            for request in (case, {"mode": "product"}):
                request = request | {"framework": framework}
                worker = stack.enter_context(working(request))
                workers[framework, request["mode"]] = worker
                _log.info("%s, %s: ready", framework, request["mode"])
        told = {framework: workers[framework, mode].told for framework in FRAMEWORKS}
        assert told["ours"]["parameters"] == told["torch"]["parameters"]
        found |= told["ours"]
        rounds = []
        for number in range(repeats):
            answers = {of: worker.step() for of, worker in workers.items()}
            rounds.append(answers)
            seconds = ", ".join(f"{f} {answers[f, mode]['seconds']:.2f} s" for f in FRAMEWORKS)
            _log.info("repeat %d of %d: %s", number + 1, repeats, seconds)
    for framework in FRAMEWORKS:
        found[framework] = {
            "seconds": [answers[framework, mode]["seconds"] for answers in rounds],
            "product_seconds": [answers[framework, "product"]["seconds"] for answers in rounds],
            "peak_rss_bytes": rounds[-1][framework, mode]["peak_rss_bytes"],
        }
    return found


def peak_flops(case: dict[str, Any]) -> float:
    """FLOPs a second of the faster framework's matrix product."""
    seconds = min(statistics.median(case[name]["product_seconds"]) for name in FRAMEWORKS)
    return 2 * PRODUCT_SIZE**3 / seconds


def table(results: dict[str, dict[str, Any]]) -> str:
    """The results in Markdown: medians, and from the least to the most in parentheses."""
    lines = [
        "| case | clips | ours | PyTorch | PyTorch / ours | GFLOP | peak, GFLOP/s "
        "| of peak: ours | PyTorch | memory: ours | PyTorch |",
        "| --- " * 11 + "|",
    ]
    for name, case in results.items():
        both = [case[framework] for framework in FRAMEWORKS]
        medians = [statistics.median(one["seconds"]) for one in both]
        peak = peak_flops(case)
        cells = [
            name,
            str(case["clips"]),
            *(f"{m:.2f} s ({_range(one)})" for m, one in zip(medians, both, strict=True)),
            f"{medians[1] / medians[0]:.2f}",
            f"{case['flops'] / 1e9:,.0f}",
            f"{peak / 1e9:.0f}",
            *(f"{100 * case['flops'] / median / peak:.0f} %" for median in medians),
            *(f"{one['peak_rss_bytes'] / 1e9:.1f} GB" for one in both),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _range(one: dict[str, Any]) -> str:
    return f"{min(one['seconds']):.2f}-{max(one['seconds']):.2f}"


def run(cases: Sequence[str], repeats: int, out: Path) -> dict[str, dict[str, Any]]:
    """The results of `cases`: those in `out`, and the others measured and added to it."""
    results = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
    for name in cases:
        if name in results:
            _log.info("%s: in %s already", name, out)
            continue
        _log.info("%s: begins", name)
        mode, variant, clips = CASES[name]
        results[name] = measure(mode, f"{CONFIG}:{variant}", clips, repeats)
        write_atomically(out, json.dumps(results, indent=1) + "\n")
    return {name: results[name] for name in cases}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="file of results, resumed from")
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--repeats", type=int, default=5, help="steps of which the median counts")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    print(table(run(args.cases, args.repeats, args.out)))


if __name__ == "__main__":
    main()
