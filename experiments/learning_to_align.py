"""How fast a small ASTRA learns with uniform and with sinusoidal codes.

Run:  python experiments/learning_to_align.py --root DIR [--steps 1500]

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
from astra_jax.devices import batch_sharding, put_batch
from astra_jax.runs.components import USUAL, build
from astra_jax.runs.folder import RunFolder
from astra_jax.runs.prepare import matches_of
from astra_jax.runs.settings import Settings, resolve

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


def settings_of(config: ConfigDict) -> Settings:
    """What a run of `config` would use; nothing is written of these trainings."""
    return Settings.from_config(resolve(config, RunFolder(Path())))


def curve(config: ConfigDict, steps: int) -> list[float]:
    """The focal loss of every hundred steps."""
    settings = settings_of(config)
    stream = TrainingStream(
        index_halves(settings.data, matches_of(settings, "train")), settings.stream
    )
    config.training.epochs = max(2, -(-steps // stream.steps_per_epoch))
    run = build(settings_of(config), stream.steps_per_epoch, USUAL)
    state, sharding = run.state, batch_sharding(run.mesh)
    losses, means = [], []
    for batch in stream.batches(0, steps):
        state, values = run.step(state, put_batch(batch, sharding))
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
    simulation = load_config(str(DEMO)).simulation.to_dict()
    write_matches(Path(args.root), SimulationSpec.from_config(simulation))
    curves = {
        codes: curve(config_of(args.root, codes, args.steps), args.steps)
        for codes in ("uniform", "sinusoidal")
    }
    print("step", *curves)
    for i, values in enumerate(zip(*curves.values(), strict=True), start=1):
        print(EVERY * i, *(f"{value:.2f}" for value in values))


if __name__ == "__main__":
    main()
