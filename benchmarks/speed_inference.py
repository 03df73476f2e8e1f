"""Seconds that a match takes from its files to its dense scores, ours or PyTorch's.

Run:  python benchmarks/speed_inference.py --framework ours [--config configs/astra.py:full]
      [--minutes 10] [--repeats 3] [--batch 8]

A made-up match of two halves in a folder for scratch, in single precision. Ours is the inference of
an evaluation, rows and audio segments embedded once. PyTorch's is what its users have: every window
read, embedded and predicted for itself, in batches of 4. One window before it, compiling with it,
doesn't count. With audio a whole match takes long on a CPU: fewer minutes say the same of a window.
"""

import argparse
import json
import os
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

TORCH_BATCH = 4

Match = Callable[[], int]
"""Predicts a match; how many windows it has."""


def torch_match(settings: Any, name: str, device: str) -> Match:
    """The match by PyTorch's twin, window by window."""
    import numpy as np
    import torch
    from twin.model import TorchASTRA
    from twin.sizes import Sizes

    from astra_jax.data.layout import audio_path, source_path

    torch.manual_seed(0)
    # As XLA multiplies in float32 on a GPU.
    torch.set_float32_matmul_precision("high")
    kind = "cuda" if device == "gpu" else "cpu"
    model = TorchASTRA(Sizes.of(settings.model)).eval().to(kind)
    spec, (source,) = settings.data, settings.data.sources
    rates = int(source.rows_per_second), spec.audio and spec.audio.frames_per_second
    clip, stride = int(settings.inference.clip_seconds), int(settings.inference.stride_seconds)

    def cut(array: Any, start: int, rate: int) -> Any:
        """A window; past the end the last row repeats."""
        part = array[start * rate : (start + clip) * rate]
        return np.pad(part, ((0, clip * rate - len(part)), (0, 0)), mode="edge")

    def predict(rows: Any, power: Any, starts: Sequence[int]) -> list[Any]:
        features = np.stack([cut(rows, start, rates[0]) for start in starts])
        log_mel = None
        if power is not None:
            frames = np.stack([cut(power, start, rates[1]) for start in starts])
            decibels = 10 * np.log10(np.maximum(frames, 1e-10) / 7430.77)
            log_mel = torch.from_numpy(np.maximum(decibels, -80)).to(kind)
        with torch.inference_mode():
            outputs = model(torch.from_numpy(features).to(kind).float(), log_mel)
        return [output.cpu().numpy() for output in outputs]

    def match(windows: int | None = None) -> int:
        count = 0
        for half in spec.periods:
            rows, power = np.load(source_path(spec, source, name, half), mmap_mode="r"), None
            if spec.audio is not None:
                power = np.load(audio_path(spec, spec.audio, name, half), mmap_mode="r").T
            starts = range(0, len(rows) // rates[0] - 1, stride)[:windows]
            for first in range(0, len(starts), TORCH_BATCH):
                count += len(predict(rows, power, starts[first : first + TORCH_BATCH])[0])
        return count

    match(windows=1)
    return match


def our_match(settings: Any, name: str) -> Match:
    """The match by our inference."""
    import dataclasses

    from astra_jax.data.index import index_halves
    from astra_jax.data.time import clip_starts
    from astra_jax.devices import local_mesh
    from astra_jax.model import ASTRA
    from astra_jax.spotting.inference import Forward, Predictor
    from astra_jax.spotting.programs import Programs

    model, config = ASTRA(settings.model), settings.inference
    forward = Forward(Programs(model, local_mesh()), model.initial_params(0))
    halves = index_halves(settings.data, (name,), labelled=False)
    short = dataclasses.replace(halves[0], seconds=1)
    Predictor(config, [(forward, [short])]).dense_scores(short)
    times = config.stride_seconds, config.clip_seconds, config.positions_per_second
    windows = sum(len(clip_starts(half.seconds, *times)) for half in halves)

    def match() -> int:
        predictor = Predictor(config, [(forward, halves)])
        for _ in predictor.all_dense_scores(halves):
            pass
        return windows

    return match


def main(argv: Sequence[str] | None = None) -> None:
    """Measures, a line of JSON a match."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--framework", choices=("ours", "torch"), required=True)
    parser.add_argument("--config", default="configs/astra.py:visual", help="PATH or PATH:ARGUMENT")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--minutes", type=float, default=90.0, help="of the match, both halves")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--batch", type=int, help="windows at a time, ours; else the config's")
    args = parser.parse_args(argv)
    if args.device == "cpu" or args.framework == "torch":
        # Before JAX is imported. Beside PyTorch it reads the config alone, and takes no GPU.
        os.environ["JAX_PLATFORMS"] = "cpu"
    from made_up_matches import settings_of, write_matches

    with tempfile.TemporaryDirectory(prefix="astra_inference_") as folder:
        keys: dict[str, Any] = {"model.dtype": "float32"}
        if args.batch is not None:
            keys["inference.batch_size"] = args.batch
        settings = settings_of(args.config, Path(folder), **keys)
        (name,) = write_matches(settings.data, 1, round(30 * args.minutes))
        if args.framework == "torch":
            match = torch_match(settings, name, args.device)
        else:
            match = our_match(settings, name)
        for _ in range(args.repeats):
            wall, cpu = time.perf_counter(), time.process_time()
            windows = match()
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            told = {"framework": args.framework, "config": args.config, "windows": windows}
            told |= {"seconds": wall, "cpu_seconds": cpu, "ms_a_window": 1000 * wall / windows}
            told["cpu_ms_a_window"] = 1000 * cpu / windows
            told["peak_rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
