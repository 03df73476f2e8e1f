"""Seconds that a match takes from its files to its dense scores, ours or PyTorch's.

Run:  python benchmarks/speed_inference.py --framework ours --config visual --minutes 90
      [--repeats 3] [--batch 8]

A match of two halves, random numbers of the true shapes: features in half precision, mel power in
single, in a folder for scratch. Ours is the inference of an evaluation, rows and audio segments
embedded once. PyTorch's is what its users have: every window read, embedded and predicted for
itself, in batches of 4. One window before it, compiling with it, doesn't count. With audio a whole
match takes long on a CPU: fewer minutes say the same of a window.
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

import numpy as np
from twin.sizes import Sizes

CONFIG = Path(__file__).parent.parent / "configs" / "astra.py"
STRIDE_SECONDS, CLIP_SECONDS, ROWS_PER_SECOND, FRAMES_PER_SECOND = 8, 50, 1, 100
TORCH_BATCH = 4
FEATURES, POWER = "{half}_baidu_soccer_embeddings.npy", "audio{half}.npy"
MATCH = "league/season/match"

Match = Callable[[], int]
"""Predicts a match; how many windows it has."""


def write_match(root: Path, sizes: Sizes, minutes: float) -> Path:
    """Both halves' files in the layout of SoccerNet, without labels; the folder of the match."""
    folder, rng, seconds = root / MATCH, np.random.default_rng(0), round(30 * minutes)
    folder.mkdir(parents=True)
    for half in (1, 2):
        rows = rng.random((seconds * ROWS_PER_SECOND, sum(sizes.widths)), np.float32)
        np.save(folder / FEATURES.format(half=half), rows.astype(np.float16))
        if sizes.audio is not None:
            power = 100 * rng.random((seconds * FRAMES_PER_SECOND, sizes.audio.mels), np.float32)
            np.save(folder / POWER.format(half=half), power)
    return folder


def torch_match(root: Path, sizes: Sizes, device: str) -> Match:
    """The match by PyTorch's twin, window by window; imports no JAX."""
    import torch
    from twin.model import TorchASTRA

    torch.manual_seed(0)
    kind = "cuda" if device == "gpu" else "cpu"
    model = TorchASTRA(sizes).eval().to(kind)

    def predict(rows: Any, power: Any, starts: Sequence[int]) -> list[Any]:
        features = np.stack([_cut(rows, start, ROWS_PER_SECOND) for start in starts])
        log_mel = None
        if power is not None:
            frames = np.stack([_cut(power, start, FRAMES_PER_SECOND) for start in starts])
            decibels = 10 * np.log10(np.maximum(frames, 1e-10) / 7430.77)
            log_mel = torch.from_numpy(np.maximum(decibels, -80)).to(kind)
        with torch.inference_mode():
            outputs = model(torch.from_numpy(features).to(kind).float(), log_mel)
        return [output.cpu().numpy() for output in outputs]

    def match(windows: int | None = None) -> int:
        count = 0
        for half in (1, 2):
            rows = np.load(root / MATCH / FEATURES.format(half=half), mmap_mode="r")
            path = root / MATCH / POWER.format(half=half)
            power = np.load(path, mmap_mode="r") if path.exists() else None
            starts = range(0, len(rows) // ROWS_PER_SECOND - 1, STRIDE_SECONDS)[:windows]
            for first in range(0, len(starts), TORCH_BATCH):
                count += len(predict(rows, power, starts[first : first + TORCH_BATCH])[0])
        return count

    match(windows=1)
    return match


def _cut(array: Any, start: int, rate: int) -> Any:
    """A window; past the end the last row repeats."""
    part = array[start * rate : (start + CLIP_SECONDS) * rate]
    return np.pad(part, ((0, CLIP_SECONDS * rate - len(part)), (0, 0)), mode="edge")


def our_match(root: Path, config: str, batch: int | None) -> Match:
    """The match by our inference."""
    import dataclasses

    import jax

    from astra_jax.config.load import load_config
    from astra_jax.data.index import index_halves
    from astra_jax.devices import local_mesh
    from astra_jax.model import ASTRA
    from astra_jax.runs.folder import RunFolder
    from astra_jax.runs.settings import Settings, resolve
    from astra_jax.spotting.inference import Forward, Predictor
    from astra_jax.spotting.programs import Programs

    # PyTorch's is in single precision as well.
    overrides = [f"--config.data.root={root}", "--config.model.dtype=float32"]
    overrides += [] if batch is None else [f"--config.inference.batch_size={batch}"]
    settings = Settings.from_config(resolve(load_config(config, overrides), RunFolder(Path("run"))))
    model = ASTRA(settings.model)
    forward = Forward(
        Programs(model, local_mesh()), jax.jit(model.initial_params)(jax.random.key(0))
    )
    halves = index_halves(settings.data, (MATCH,), labelled=False)
    short = dataclasses.replace(halves[0], seconds=1)
    Predictor(settings.inference, [(forward, [short])]).dense_scores(short)

    def match() -> int:
        predictor = Predictor(settings.inference, [(forward, halves)])
        for _ in predictor.all_dense_scores(halves):
            pass
        return sum(len(range(0, int(half.seconds) - 1, STRIDE_SECONDS)) for half in halves)

    return match


def main(argv: Sequence[str] | None = None) -> None:
    """Measures, a line of JSON a match."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--framework", choices=("ours", "torch"), required=True)
    parser.add_argument("--config", choices=("visual", "full"), default="visual")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--minutes", type=float, default=90.0, help="of the match, both halves")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--batch", type=int, help="windows at a time, ours; else the config's")
    parser.add_argument("--sizes", type=Path, help="the twin's, a file of JSON; else the config's")
    args = parser.parse_args(argv)
    if args.device == "cpu":
        os.environ["JAX_PLATFORMS"] = "cpu"  # before JAX is imported
    config = f"{CONFIG}:{args.config}"
    if args.sizes is None:
        from speed_ours import settings_of

        sizes = Sizes.of(settings_of(config).model)
    else:
        sizes = Sizes.from_json(json.loads(args.sizes.read_text(encoding="utf-8")))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_match(root, sizes, args.minutes)
        match = (
            torch_match(root, sizes, args.device)
            if args.framework == "torch"
            else our_match(root, config, args.batch)
        )
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
