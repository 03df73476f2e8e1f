"""How fast a small ASTRA learns with uniform and with sinusoidal codes.

Run:  python benchmarks/learning_to_align.py --root DIR [--steps 1500]

Trains the demo's model twice on the demo's simulated matches in DIR (written there where it is
empty), without audio, augmentation or mixup and with the published start but for the codes, and
prints the focal loss (times its weight of 100, mean of the last 100 steps) as it falls.
"""

import argparse
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from astra_jax.config.load import load_config
from astra_jax.data.index import index_halves
from astra_jax.data.pipeline import TrainingStream
from astra_jax.data.simulation.writer import SimulationSpec, write_matches
from astra_jax.data.sources import DataSpec
from astra_jax.data.splits import load_split
from astra_jax.devices import batch_sharding, make_mesh, put_batch
from astra_jax.model import ModelConfig
from astra_jax.training.losses import LossConfig
from astra_jax.training.optimizer import make_optimizer
from astra_jax.training.state import init_state
from astra_jax.training.step import make_train_step

DEMO = Path(__file__).parents[1] / "configs" / "demo.py"
EVERY = 100


def config_of(root: str, codes: str, steps: int) -> ConfigDict:
    """The demo's config with `codes`, everything else as published or switched off."""
    config = load_config(str(DEMO))
    config.data.root = root
    with config.ignore_type():
        config.data.audio = None
    config.mixup.kind = "none"
    config.model.update(codes=codes, class_prior=None, aligned_attention=False, head_dropout=0.0)
    config.model.update(temporal_dropout=0.0, temporal_switch=0.0)
    config.training.epochs = steps
    return config


def curve(config: ConfigDict, steps: int) -> list[float]:
    """The focal loss of every hundred steps."""
    spec = DataSpec.from_config(config.data)
    halves = index_halves(spec, load_split(config.data.splits.train, config.data.root))
    stream = TrainingStream(halves, config)
    config.training.epochs = max(2, -(-steps // stream.steps_per_epoch))
    optimizer = make_optimizer(config, stream.steps_per_epoch)
    mesh, model = make_mesh(), ModelConfig.from_config(config)
    state = init_state(model, optimizer, config.seed, mesh)
    step = make_train_step(
        model, LossConfig.from_config(config), optimizer, stream.steps_per_epoch, config.seed, mesh
    )
    losses, means = [], []
    for batch in stream.batches(0, steps):
        state, values = step(state, put_batch(batch, batch_sharding(mesh)))
        losses.append(values.losses[1])
        if len(losses) == EVERY:
            means.append(100 * float(np.mean(jax.device_get(losses))))
            losses = []
            print(f"{config.model.codes}: step {EVERY * len(means)}: {means[-1]:.2f}", flush=True)
    return means


def main() -> None:
    """Prints both curves side by side."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", required=True, help="folder of the demo's simulated matches")
    parser.add_argument("--steps", type=int, default=1500)
    args = parser.parse_args()
    write_matches(Path(args.root), SimulationSpec.from_config(load_config(str(DEMO)).simulation))
    curves = {
        codes: curve(config_of(args.root, codes, args.steps), args.steps)
        for codes in ("uniform", "sinusoidal")
    }
    print("step", *curves)
    for i, values in enumerate(zip(*curves.values(), strict=True), start=1):
        print(EVERY * i, *(f"{value:.2f}" for value in values))


if __name__ == "__main__":
    main()
