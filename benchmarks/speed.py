"""Speed and memory at full size, ours and PyTorch's: the tables of docs/performance.md.

Run:  python benchmarks/speed.py --device cpu --out runs/speed_cpu.json [--cases NAME ...]
      python benchmarks/speed.py --device gpu --out runs/speed_gpu.json
      python benchmarks/speed.py --out runs/speed_gpu.json --table

Cases of configs/astra.py: train steps and forward passes, with audio ("full") and without
("visual"), and whole programs: train.py's start, its loop, inference of a match. PyTorch's twin
runs eagerly and by torch.compile. On a GPU all are measured unless some are named, on a CPU a few
steps.
The file is written after each case, and the same command goes on after the last one; a case is
measured again when its entry is taken out of the file. Linux only.
"""

import argparse
import contextlib
import dataclasses
import datetime
import json
import logging
import os
import platform
import shutil
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
from made_up_matches import settings_of
from speed_cases import Case, cases_of, usual_cases
from speed_processes import Failed, Worker, working
from speed_programs import measure_inference, measure_loop, measure_start
from speed_steps import Request
from speed_tables import FRAMEWORKS, tables
from twin.sizes import Sizes

from astra_jax.files import write_atomically

PACKAGES = ("jax", "jaxlib", "flax", "torch")
REPEATS = {"cpu": 5, "gpu": 20}
STEPS_A_REPEAT = {"cpu": 1, "gpu": 10}
"""On a GPU steps follow each other as in a training: the host runs ahead of the device."""
PRODUCT_SIZE = {"cpu": 2048, "gpu": 8192}
TURNS = {"cpu": (("ours", "torch"), ("torch compiled",)), "gpu": tuple((f,) for f in FRAMEWORKS)}
"""Who takes turns: on a CPU the two that are compared, so that a machine that slows down slows
both; on a GPU each has the memory to itself."""
TRACED_STEPS = 5

_log = logging.getLogger("speed")


def measure(case: Case, device: str, repeats: int) -> dict[str, Any]:
    """One case by all frameworks, with what it was measured on."""
    found: dict[str, Any] = {
        **dataclasses.asdict(case),
        "device": device,
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "load_average": os.getloadavg()[0],
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}",
        "versions": {name: _version(name) for name in PACKAGES},
    }
    if case.kind == "inference":
        return found | measure_inference(case, device)
    mode = case.kind if case.kind == "forward" else "train"
    requests = [_request(case, device, framework, mode) for framework in FRAMEWORKS]
    if case.kind == "start":
        return found | measure_start(case, device, requests[1:])
    if case.kind == "loop":
        return found | measure_loop(case, device, repeats, requests[0])
    for turn in TURNS[device]:
        found |= measure_steps([r for r in requests if r.framework in turn], repeats)
    return found


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _request(case: Case, device: str, framework: str, mode: str) -> Request:
    sizes = dataclasses.asdict(Sizes.of(settings_of(case.config).model))
    return Request(framework, mode, device, case.dtype, case.clips, case.config, sizes)


def measure_steps(requests: Sequence[Request], repeats: int) -> dict[str, Any]:
    """Steps of several frameworks, in turn: what each repeat took, by framework.

    Beside each a product of matrices by the same framework takes its turn. What one can't do is
    under "error", and the others are measured without it.
    """
    found: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:
        workers: dict[str, tuple[Worker, Worker]] = {}
        for request in requests:
            device, size = request.device, PRODUCT_SIZE[request.device]
            with _failing(request.framework, found, workers):
                product = dataclasses.replace(request, mode="product", clips=size)
                _check_compiler(request)
                pair = [stack.enter_context(working(one)) for one in (request, product)]
                found[request.framework] = pair[0].told | {
                    "seconds": [],
                    "product_seconds": [],
                    "product_size": size,
                }
                workers[request.framework] = pair[0], pair[1]
                _log.info("%s: ready after %.1f s", request.framework, pair[0].seconds)
        for _ in range(repeats):
            for framework, (worker, product) in list(workers.items()):
                with _failing(framework, found, workers):
                    one, taken = found[framework], worker.take(STEPS_A_REPEAT[device])
                    one["seconds"].append(taken["seconds"])
                    one["peak_bytes"] = taken["peak_bytes"]
                    taken = product.take(STEPS_A_REPEAT[device])
                    one["product_seconds"].append(taken["seconds"])
        for framework, (worker, _) in list(workers.items()):
            if device == "gpu":
                with _failing(framework, found, workers):
                    found[framework] |= worker.trace(TRACED_STEPS)
    return found


@contextlib.contextmanager
def _failing(framework: str, found: dict[str, Any], workers: dict[str, Any]) -> Iterator[None]:
    """What fails in here is told beside what was measured already; that framework is done then."""
    try:
        yield
    except Failed as error:
        found.setdefault(framework, {})["error"] = str(error)
        workers.pop(framework, None)
        _log.info("%s", error)


def _check_compiler(request: Request) -> None:
    """Raises Failed where torch.compile has nothing to compile with."""
    compiler = os.environ.get("CXX", "g++")
    if request.framework == "torch compiled" and shutil.which(compiler) is None:
        raise Failed(f"torch.compile needs a C++ compiler, and there is no {compiler} here")


def _check_gpu(parser: argparse.ArgumentParser) -> None:
    """Ends the program where JAX has no GPU, before each case says so for itself."""
    try:
        with working(Request("ours", "product", "gpu", "float32", 8)):
            pass
    except Failed as error:
        parser.exit(1, f"--device gpu: JAX has no GPU here: {error}\n")


def run(cases: Sequence[Case], device: str, repeats: int, out: Path) -> dict[str, dict[str, Any]]:
    """The results in `out`, to which those of `cases` are added that it hasn't yet."""
    results = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
    for case in cases:
        if case.name in results:
            _log.info("%s: in %s already", case.name, out)
            continue
        _log.info("%s: begins", case.name)
        try:
            results[case.name] = measure(case, device, repeats)
        except (Failed, OSError) as error:
            _log.error("%s: %s", case.name, error)
            results[case.name] = {**dataclasses.asdict(case), "error": str(error)}
        write_atomically(out, json.dumps(results, indent=1) + "\n")
    return results


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--out", type=Path, required=True, help="file of results, resumed from")
    parser.add_argument("--cases", nargs="+", metavar="NAME", help="some of them, or another name")
    parser.add_argument("--repeats", type=int, help="of which the median counts (CPU 5, GPU 20)")
    parser.add_argument("--table", action="store_true", help="print what --out has, measure none")
    args = parser.parse_args(argv)
    # This process computes nothing: JAX would take most of a GPU's memory for it.
    jax.config.update("jax_platforms", "cpu")
    known = cases_of(args.device)
    names = [] if args.table else args.cases or usual_cases(args.device)
    for name in names:
        if name not in known:
            parser.error(f"--cases: {name!r} is none of: {', '.join(known)}")
    chosen = [known[name] for name in names]
    if chosen and args.device == "gpu":
        _check_gpu(parser)
    repeats = args.repeats or REPEATS[args.device]
    print(tables(run(chosen, args.device, repeats, args.out)))


if __name__ == "__main__":
    # Here and not in main, whose callers have a log of their own. A library that was imported has
    # set it up already.
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", force=True)
    main()
