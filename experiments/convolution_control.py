"""The control of docs/small_data.md: a two-layer convolution on a config's clips and targets.

Run:  python experiments/convolution_control.py --root COMMENTARY [--seeds 1 2 3] [--split held_out]

Same clips, targets, losses, windows and suppression as ASTRA's: kernels of 9 output positions, the
raw columns beside the last layer, Adam at 1e-3 falling to 0 on a cosine. Scored by the
cross-validation of small_data.py, or on `--split` after training as the config says.
What ASTRA doesn't learn and this does isn't the data's fault.
"""

import argparse
import time
from functools import partial
from pathlib import Path
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
from astra_jax.data.index import index_halves, read_labels
from astra_jax.data.mixing import finish_mixing
from astra_jax.data.normalization import Normalizations, measure_normalizations, normalize
from astra_jax.data.pipeline import TrainingStream
from astra_jax.devices import make_mesh
from astra_jax.evaluation.metrics import average_maps
from astra_jax.model import Predictions, SpottingModel
from astra_jax.model.layers import step_times
from astra_jax.runs.folder import RunFolder
from astra_jax.runs.prepare import matches_of
from astra_jax.runs.settings import Settings, resolve
from astra_jax.spotting.inference import Forward, Predictor
from astra_jax.spotting.matches import predict_matches
from astra_jax.spotting.programs import Programs
from astra_jax.training.losses import losses

LOGIT_AT_START = -4.0


class Convolution(SpottingModel):
    """Sources side by side at the output rate, two convolutions, called like `ASTRA`."""

    channels: int = 64
    kernel: int = 9

    @nn.compact
    def __call__(self, inputs: dict[str, Any], train: bool = False) -> Predictions:
        """Predicts clips."""
        del train
        columns, positions = self.config.num_classes + 1, self.config.positions
        x = jnp.concatenate(
            [rows[:, _row_of_position(rows.shape[1], positions)] for rows in inputs["features"]],
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
    return np.searchsorted(step_times(rows, positions), np.arange(positions), side="right") - 1


def _prior(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    del key
    columns = shape[0] // 3
    bias = jnp.zeros(shape, dtype).at[:columns].set(LOGIT_AT_START)
    return bias.at[0].set(-LOGIT_AT_START)


def train(settings: Settings, halves: list[Half], steps: int) -> tuple[SpottingModel, Any]:
    """The model and its parameters after `steps`."""
    model = Convolution(settings.model)
    optimizer = optax.adam(optax.cosine_decay_schedule(1e-3, steps))

    @partial(jax.jit, donate_argnums=0)
    def step(state: tuple[Any, Any], batch: dict[str, Any]) -> tuple[Any, Any]:
        def loss(params: Any) -> jax.Array:
            return losses(
                model.apply({"params": params}, batch),
                batch["class_targets"],
                batch["displacements"],
                batch["displacement_mask"],
                settings.loss,
            ).total

        params, moments = state
        updates, moments = optimizer.update(jax.grad(loss)(params), moments, params)
        return optax.apply_updates(params, updates), moments

    state = None
    for batch in map(finish_mixing, TrainingStream(halves, settings.stream).batches(0, steps)):
        if state is None:
            params = model.init(jax.random.key(settings.seed), batch)["params"]
            state = params, optimizer.init(params)
        state = step(state, batch)
    return model, jax.device_get(state[0])


def predict(
    settings: Settings, model: SpottingModel, params: Any, split: str, norms: Normalizations
) -> tuple[Any, Any]:
    """Labels and predictions of a split's matches."""
    matches = matches_of(settings, split)
    halves = normalize(index_halves(settings.data, matches, labelled=False), norms)
    forward = Forward(Programs(model, make_mesh()), params)
    predictor = Predictor(settings.inference, [(forward, halves)])
    found = predict_matches(predictor, halves, settings.data.classes)
    return read_labels(settings.data, matches), found


def measure(
    config: ConfigDict, folds: dict[str, tuple[str | None, str]], steps: int
) -> list[float]:
    """Loose and tight Average-mAP of all folds' matches together, in per cent, and seconds."""
    labels, found, seconds = {}, {}, 0.0
    settings = Settings.from_config(resolve(config, RunFolder(Path())))  # no run's folder
    for trained_on, split in folds.values():
        halves = index_halves(settings.data, matches_of(settings, trained_on or "train"))
        norms = measure_normalizations(halves)
        started = time.monotonic()
        model, params = train(settings, normalize(halves, norms), steps)
        seconds += (time.monotonic() - started) / len(folds)
        for whole, part in zip(
            (labels, found), predict(settings, model, params, split, norms), strict=True
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
