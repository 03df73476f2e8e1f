"""What makes ASTRA learn from little, weak data: the table of docs/small_data.md.

Run:  python experiments/small_data.py --root COMMENTARY --out DIR [--seeds 1 2] [--variants ...]

Trains variants of configs/commentary.py, each with one cause taken away or changed, by
cross-validation within the training matches: on 60 of train.txt, scored on the other 20, twice, the
40 scored together. `--split held_out` trains as the config says and scores that split: for the
committed config alone, once. `--epochs 5` compares variants after a shorter training. Runs lie in
DIR and resume; `--folds first` and `--folds last` may run side by side, and a third command then
prints the table.
"""

import argparse
import contextlib
import functools
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from astra_jax import runs
from astra_jax.config.clock import CLOCK_PATTERN
from astra_jax.config.load import load_config
from astra_jax.data.clips import read_clip
from astra_jax.data.index import index_halves, read_labels
from astra_jax.data.normalization import normalize
from astra_jax.evaluation.metrics import average_maps
from astra_jax.formats.soccernet_results import read_predictions
from astra_jax.runs.components import USUAL
from astra_jax.runs.folder import RunFolder
from astra_jax.runs.members import open_members
from astra_jax.runs.prepare import matches_of, normalizations_of
from astra_jax.runs.settings import Settings, resolve
from astra_jax.training.losses import classification_loss

CONFIG = Path(__file__).parents[1] / "configs" / "commentary.py"
CLIPS_AT_A_TIME = 32
SCORED = "scored"

FOLDS = {
    "first": ("train.txt[20:]", "train.txt[:20]"),
    "last": ("train.txt[:60]", "train.txt[60:]"),
}
"""Training matches and scored ones of each fold."""


def _each_source(**keys: Any) -> Callable[[Any], Any]:
    """A change of `data.sources`: these keys in every one but the clock."""
    return lambda sources: tuple(
        source if source["pattern"] == CLOCK_PATTERN else {**source, **keys} for source in sources
    )


def _without_clock(sources: Any) -> Any:
    return tuple(source for source in sources if source["pattern"] != CLOCK_PATTERN)


VARIANTS: dict[str, dict[str, Any]] = {
    "committed": {},
    "no_shortcut": {"model.shortcut_seconds": None},
    "no_clock": {"data.sources": _without_clock},
    "focal_loss": {"loss.focal": True},
    "fixed_starts": {"clip.random_starts": False},
    "near_shortcut": {"model.shortcut_seconds": 4.0},
    "all_columns": {"data.sources": _each_source(shortcut_columns=None)},
    "not_normalized": {"data.sources": _each_source(normalize=False)},
    "uniform_codes": {"model.codes": "uniform", "model.aligned_attention": False},
    "no_class_prior": {"model.class_prior": None},
    "no_average": {"training.average_decay": 0.0},
    "pre_norm": {"model.norm": "pre"},
    "balanced_mixup": {"mixup.kind": "balanced"},
    "augmentation": {"model.temporal_dropout": 0.5, "model.temporal_switch": 0.3},
    "amsgrad": {"optimizer.amsgrad": True},
    "no_weight_decay": {"optimizer.weight_decay": 0.0},
    "third_of_the_rate": {"optimizer.learning_rate": lambda rate: rate / 3},
    "half_the_epochs": {"training.epochs": lambda epochs: epochs // 2},
    "published_start": {
        "model.codes": "uniform",
        "model.aligned_attention": False,
        "model.class_prior": None,
        "model.shortcut_seconds": None,
        "data.sources": lambda sources: _each_source(normalize=False)(_without_clock(sources)),
        "loss.focal": True,
        "clip.random_starts": False,
    },
}
"""What each variant changes of the committed config; a function is given the committed value."""


def config_of(variant: str, seed: int, root: str) -> ConfigDict:
    """The config of a variant."""
    config = load_config(str(CONFIG), [f"--config.seed={seed}", f"--config.data.root={root}"])
    committed = {key: _value(config, key) for key in VARIANTS[variant]}
    with config.ignore_type():
        config.update_from_flattened_dict(
            {
                key: value(committed[key]) if callable(value) else value
                for key, value in VARIANTS[variant].items()
            }
        )
    return config


def _value(config: ConfigDict, key: str) -> Any:
    return functools.reduce(getattr, key.split("."), config)


def validation_losses(workdir: Path, split: str) -> tuple[float, float]:
    """Cross-entropy and focal loss x 100 of a run on the clips of a split that don't overlap."""
    (run,) = open_members([workdir], (), USUAL)
    settings, model = run.settings, run.model
    _, params = run.restore()
    halves = normalize(
        index_halves(settings.data, matches_of(settings, split)), normalizations_of(run.folder, ())
    )
    targets, seconds = settings.stream.targets, settings.stream.clip.seconds
    starts = [
        (half, start) for half in halves for start in np.arange(0, half.seconds - seconds, seconds)
    ]

    @jax.jit
    def loss(params, batch):
        probabilities = model.apply({"params": params}, batch).probabilities
        targets = batch["class_targets"]
        return jnp.stack([classification_loss(probabilities, targets, f) for f in (False, True)])

    values = []
    for first in range(0, len(starts) - CLIPS_AT_A_TIME + 1, CLIPS_AT_A_TIME):
        clips = [read_clip(*where, targets) for where in starts[first : first + CLIPS_AT_A_TIME]]
        values.append(loss(params, jax.tree.map(lambda *leaves: np.stack(leaves), *clips)))
    entropy, focal = 100 * np.mean(values, axis=0)
    return float(entropy), float(focal)


def train_and_predict(config: ConfigDict, workdir: Path, split: str) -> dict[str, Any]:
    """Trains (or finds) a run; its losses on a split, whose results lie in WORKDIR/SCORED."""
    summary = workdir / f"{SCORED}.json"
    if not summary.exists():
        with contextlib.redirect_stderr(io.StringIO()):
            seconds = runs.train(config, workdir)["seconds"]
            runs.evaluate(workdir, split, workdir / SCORED)
        entropy, focal = validation_losses(workdir, split)
        summary.write_text(json.dumps({"entropy": entropy, "focal": focal, "seconds": seconds}))
    return json.loads(summary.read_text())


def measure(
    variant: str,
    seed: int,
    args: argparse.Namespace,
    folds: dict[str, tuple[str | None, str]],
) -> dict[str, float]:
    """Scores in per cent of all folds' matches together, mean losses and seconds."""
    rows, labels, found = [], {}, {}
    for name, (trained_on, split) in folds.items():
        config, workdir = config_of(variant, seed, args.root), args.out / f"{variant}-{name}-{seed}"
        if args.epochs is not None:
            config.training.epochs = args.epochs
            workdir = workdir.with_name(f"{workdir.name}-{args.epochs}-epochs")
        if trained_on is not None:
            # Without a validation split the last epoch predicts: nothing is chosen on the fold.
            config.data.splits.train, config.data.splits.valid = trained_on, ""
        rows.append(train_and_predict(config, workdir, split))
        settings = Settings.from_config(resolve(config, RunFolder(workdir)))
        matches = matches_of(settings, split)
        labels |= read_labels(settings.data, matches) or {}
        found |= read_predictions(workdir / SCORED / "results.zip", matches)
    blocks = average_maps(labels, found, ("loose", "tight"), config.data.classes)
    scores = {name: 100 * block["a_mAP"] for name, block in blocks.items()}
    return scores | {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}


COLUMNS = {"loose": 1, "tight": 1, "entropy": 2, "focal": 2, "seconds": 0}
"""Columns of the table and their digits."""


def main() -> None:
    """Prints one line of a Markdown table a variant: mean and each seed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", required=True, help="folder of the config's matches")
    parser.add_argument("--out", required=True, type=Path, help="folder of the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--folds", nargs="+", default=list(FOLDS), choices=list(FOLDS))
    parser.add_argument("--epochs", type=int, help="instead of the config's")
    parser.add_argument("--split", help="train as the config says and score this split")
    args = parser.parse_args()
    folds: dict[str, tuple[str | None, str]] = {name: FOLDS[name] for name in args.folds}
    if args.split is not None:
        folds = {args.split: (None, args.split)}
    print(f"| variant | {' | '.join(COLUMNS)} |\n|{' --- |' * (len(COLUMNS) + 1)}")
    for variant in args.variants:
        rows = [measure(variant, seed, args, folds) for seed in args.seeds]
        cells = []
        for name, digits in COLUMNS.items():
            values = [row[name] for row in rows]
            each = ", ".join(f"{value:.{digits}f}" for value in values)
            mean = f"{np.mean(values):.{digits}f}"
            cells.append(f"{mean} ({each})" if len(values) > 1 and name != "seconds" else mean)
        print(f"| {variant} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
