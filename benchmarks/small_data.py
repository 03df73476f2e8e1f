"""What makes ASTRA learn from little, weak data: the table of docs/small_data.md.

Run:  python benchmarks/small_data.py --root COMMENTARY --out DIR [--seeds 1 2] [--variants ...]

Trains configs/commentary.py and variants of it, each with one cause taken away (or added), and
scores them on the selection matches; `--split held_out` is for the committed config alone, once.
Runs lie in DIR/NAME-SEED and resume; several of these commands may share the variants.
"""

import argparse
import contextlib
import io
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from astra_jax import runs
from astra_jax.configuration import load_config
from astra_jax.data import normalization
from astra_jax.data.clips import read_clip
from astra_jax.data.soccernet import DataSpec, index_halves, load_split
from astra_jax.data.targets import TargetSpec
from astra_jax.model import ASTRA
from astra_jax.training.checkpoints import Checkpoints
from astra_jax.training.losses import classification_loss
from astra_jax.training.state import abstract_params, make_mesh, replicated

CONFIG = Path(__file__).parents[1] / "configs" / "commentary.py"
CLIPS_AT_A_TIME = 32

_AS_THEY_ARE = (
    {
        "pattern": "{half}_commentary_words.npy",
        "rows_per_second": 1.0,
        "widths": (49,),
        "normalize": False,
    },
    {
        "pattern": "{half}_commentary_pace.npy",
        "rows_per_second": 2.0,
        "widths": (6,),
        "normalize": False,
    },
)

VARIANTS: dict[str, dict[str, Any]] = {
    "committed": {},
    "no_shortcut": {"model.shortcut_seconds": None},
    "uniform_codes": {"model.codes": "uniform", "model.aligned_attention": False},
    "no_class_prior": {"model.class_prior": None},
    "no_average": {"training.average_decay": 0.0},
    "not_normalized": {"data.sources": _AS_THEY_ARE},
    "pre_norm": {"model.norm": "pre"},
    "balanced_mixup": {"mixup.kind": "balanced"},
    "augmentation": {"model.temporal_dropout": 0.5, "model.temporal_switch": 0.3},
    "amsgrad": {"optimizer.amsgrad": True},
    "half_rate": {"optimizer.learning_rate": 5e-4},
    "double_rate": {"optimizer.learning_rate": 2e-3},
    "published_start": {
        "model.codes": "uniform",
        "model.aligned_attention": False,
        "model.class_prior": None,
        "model.shortcut_seconds": None,
        "data.sources": _AS_THEY_ARE,
    },
}
"""What each variant changes of the committed config."""


def config_of(variant: str, seed: int, root: str) -> ConfigDict:
    """The config of a variant."""
    config = load_config(str(CONFIG), [f"--config.seed={seed}", f"--config.data.root={root}"])
    with config.ignore_type():
        config.update_from_flattened_dict(VARIANTS[variant])
    return config


def focal_loss(config: ConfigDict, workdir: Path, split: str) -> float:
    """Classification loss x 100 on the clips of a split that don't overlap, nothing mixed."""
    spec = DataSpec.from_config(config.data)
    halves = normalization.normalized(
        index_halves(spec, load_split(config.data.splits[split], config.data.root)),
        normalization.load(workdir / normalization.FILE_NAME),
    )
    model_config = runs.model_of(config)
    with contextlib.closing(Checkpoints(workdir, read_only=True)) as checkpoints:
        _, params = checkpoints.restore_best(abstract_params(model_config, replicated(make_mesh())))
    targets = TargetSpec.from_config(config, len(spec.classes))
    starts = [
        (half, start)
        for half in halves
        for start in np.arange(0, half.seconds - config.clip.seconds, config.clip.seconds)
    ]
    model = ASTRA(model_config)

    @jax.jit
    def loss(params, batch):
        probabilities = model.apply({"params": params}, batch).probabilities
        return classification_loss(probabilities, batch["class_targets"])

    values = []
    for first in range(0, len(starts) - CLIPS_AT_A_TIME + 1, CLIPS_AT_A_TIME):
        clips = [read_clip(*where, targets) for where in starts[first : first + CLIPS_AT_A_TIME]]
        values.append(loss(params, jax.tree.map(lambda *leaves: np.stack(leaves), *clips)))
    return 100 * float(np.mean(values))


def measure(variant: str, seed: int, root: str, out: Path, split: str) -> dict[str, float]:
    """Trains (or finds) one run and scores it, in per cent."""
    config, workdir = config_of(variant, seed, root), out / f"{variant}-{seed}"
    result = workdir / f"{split}.json"
    if result.exists():
        return json.loads(result.read_text())
    with contextlib.redirect_stderr(io.StringIO()):
        summary = runs.train(config, workdir)
        blocks = runs.evaluate(workdir, split, workdir / split)
    values = {
        "loose": 100 * blocks["loose"]["a_mAP"],
        "tight": 100 * blocks["tight"]["a_mAP"],
        "focal": focal_loss(config, workdir, split),
        "seconds": summary["seconds"],
    }
    result.write_text(json.dumps(values))
    return values


def main() -> None:
    """Prints one line of a Markdown table a variant: mean and each seed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", required=True, help="folder of the config's matches")
    parser.add_argument("--out", required=True, type=Path, help="folder of the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--split", default="valid")
    args = parser.parse_args()
    print("| variant | loose | tight | focal loss | seconds |\n| --- | --- | --- | --- | --- |")
    for variant in args.variants:
        rows = [measure(variant, seed, args.root, args.out, args.split) for seed in args.seeds]
        cells = []
        for name, digits in (("loose", 1), ("tight", 1), ("focal", 2), ("seconds", 0)):
            values = [row[name] for row in rows]
            each = ", ".join(f"{value:.{digits}f}" for value in values)
            mean = f"{np.mean(values):.{digits}f}"
            cells.append(f"{mean} ({each})" if len(values) > 1 and name != "seconds" else mean)
        print(f"| {variant} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
