"""The control of docs/small_data.md: a two-layer convolution on a config's clips and targets.

Run:  python benchmarks/convolution_control.py --root COMMENTARY [--seeds 1 2 3] [--split held_out]

Same clips, targets, losses, windows and suppression as ASTRA's: kernels of 9 output positions, the
raw columns beside the last layer, Adam at 1e-3 falling to 0 on a cosine. Scored by the
cross-validation of small_data.py, or on `--split` after training as the config says.
What ASTRA doesn't learn and this does isn't the data's fault.
"""

import argparse
import time
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from ml_collections import ConfigDict
from small_data import FOLDS

from astra_jax.config.load import load_config
from astra_jax.data.halves import Half
from astra_jax.data.index import index_halves
from astra_jax.data.normalization import Normalizations, normalized
from astra_jax.data.normalization import measure as measure_sources
from astra_jax.data.pipeline import TrainingStream
from astra_jax.data.sources import DataSpec
from astra_jax.data.splits import load_split
from astra_jax.evaluation.metrics import average_maps
from astra_jax.formats.soccernet_labels import read_raw_annotations
from astra_jax.model import Predictions
from astra_jax.model.layers import clock
from astra_jax.spotting.inference import Predictor
from astra_jax.spotting.matches import predict_matches
from astra_jax.training.losses import LossConfig, losses

LOGIT_AT_START = -4.0


class Convolution(nn.Module):
    """Sources side by side at the output rate, two convolutions, called like `ASTRA`."""

    positions: int
    classes: int
    channels: int = 64
    kernel: int = 9

    @nn.compact
    def __call__(self, inputs: dict[str, Any], train: bool = False) -> Predictions:
        """Predicts clips."""
        del train
        columns = self.classes + 1
        x = jnp.concatenate(
            [
                rows[:, _row_of_position(rows.shape[1], self.positions)]
                for rows in inputs["features"]
            ],
            axis=-1,
        )
        hidden = nn.relu(nn.Conv(self.channels, (self.kernel,))(x))
        out = nn.Conv(3 * columns, (self.kernel,), bias_init=_prior)(
            jnp.concatenate([hidden, x], axis=-1)
        )
        logits, mean, log_variance = jnp.split(out, 3, axis=-1)
        return Predictions(jax.nn.sigmoid(logits), mean, log_variance)


def _row_of_position(rows: int, positions: int) -> np.ndarray:
    """The row of a source in which each output position of a clip lies."""
    return np.searchsorted(clock(rows, positions), np.arange(positions), side="right") - 1


def _prior(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    del key
    columns = shape[0] // 3
    bias = jnp.zeros(shape, dtype).at[:columns].set(LOGIT_AT_START)
    return bias.at[0].set(-LOGIT_AT_START)


def train(config: ConfigDict, halves: list[Half], steps: int) -> tuple[nn.Module, Any]:
    """The model and its parameters after `steps`."""
    model = Convolution(
        int(config.clip.seconds * config.clip.positions_per_second), len(config.data.classes)
    )
    loss_config = LossConfig.from_config(config)
    optimizer = optax.adam(optax.cosine_decay_schedule(1e-3, steps))

    @partial(jax.jit, donate_argnums=0)
    def step(state: tuple[Any, Any], batch: dict[str, Any]) -> tuple[Any, Any]:
        def loss(params: Any) -> jax.Array:
            return losses(
                model.apply({"params": params}, batch),
                batch["class_targets"],
                batch["displacements"],
                batch["displacement_mask"],
                loss_config,
            ).total

        params, moments = state
        updates, moments = optimizer.update(jax.grad(loss)(params), moments, params)
        return optax.apply_updates(params, updates), moments

    state = None
    for batch in TrainingStream(halves, config).batches(0, steps):
        if state is None:
            params = model.init(jax.random.key(config.seed), batch)["params"]
            state = params, optimizer.init(params)
        state = step(state, batch)
    return model, jax.device_get(state[0])


def predict(
    config: ConfigDict, model: nn.Module, params: Any, split: str, norms: Normalizations
) -> tuple[Any, Any]:
    """Labels and predictions of a split's matches."""
    spec = DataSpec.from_config(config.data)
    matches = load_split(config.data.splits.to_dict().get(split, split), config.data.root)
    halves = normalized(index_halves(spec, matches, labelled=False), norms)
    labels = {m: read_raw_annotations(spec.labels_root / m / spec.labels_file) for m in matches}
    return labels, predict_matches(Predictor(config, model, params), halves, spec.classes)


def measure(
    config: ConfigDict, folds: dict[str, tuple[str | None, str]], steps: int
) -> list[float]:
    """Loose and tight Average-mAP of all folds' matches together, in per cent, and seconds."""
    labels, found, seconds = {}, {}, 0.0
    for trained_on, split in folds.values():
        spec = DataSpec.from_config(config.data)
        train_split = trained_on or config.data.splits.train
        halves = index_halves(spec, load_split(train_split, config.data.root))
        norms = measure_sources(halves)
        started = time.monotonic()
        model, params = train(config, normalized(halves, norms), steps)
        seconds += (time.monotonic() - started) / len(folds)
        for whole, part in zip(
            (labels, found), predict(config, model, params, split, norms), strict=True
        ):
            whole.update(part)
    blocks = average_maps(labels, found, ("loose", "tight"), config.data.classes)
    return [100 * blocks["loose"]["a_mAP"], 100 * blocks["tight"]["a_mAP"], seconds]


def main() -> None:
    """Prints a line a seed, then mean and standard deviation."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="configs/commentary.py")
    parser.add_argument("--root", required=True, help="folder of the config's matches")
    parser.add_argument("--split")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--steps", type=int, default=2500)
    args = parser.parse_args()
    folds = FOLDS if args.split is None else {args.split: (None, args.split)}
    rows = []
    for seed in args.seeds:
        config = load_config(args.config)
        config.seed, config.data.root, config.mixup.kind = seed, args.root, "none"
        rows.append(measure(config, folds, args.steps))
        loose, tight, seconds = rows[-1]
        print(f"seed {seed}: loose {loose:.2f}, tight {tight:.2f}; {seconds:.0f} s", flush=True)
    mean, deviation = np.mean(rows, axis=0), np.std(rows, axis=0)
    print(
        f"mean of {len(rows)}: loose {mean[0]:.2f} (sd {deviation[0]:.2f}), tight {mean[1]:.2f} "
        f"(sd {deviation[1]:.2f})"
    )


if __name__ == "__main__":
    main()
