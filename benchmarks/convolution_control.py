"""The control of docs/small_data.md: a two-layer convolution on a config's clips and targets.

Run:  python benchmarks/convolution_control.py --config configs/commentary.py --root COMMENTARY
          --split valid [--seeds 1 2 3] [--steps 2500] [--window-scale 2]

Same clips, targets, losses, windows and suppression as ASTRA's, without mixup: kernels of 9 output
positions, the raw columns beside the last layer, Adam at 1e-3 falling to 0 on a cosine. What
ASTRA doesn't learn and this does isn't the data's fault.
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

from astra_jax.configuration import load_config
from astra_jax.data.normalization import Normalizations, measure, normalized
from astra_jax.data.pipeline import TrainingStream
from astra_jax.data.soccernet import DataSpec, Half, index_halves, load_split, read_raw_annotations
from astra_jax.evaluation.metrics import average_maps
from astra_jax.model import Predictions
from astra_jax.model.layers import clock
from astra_jax.runs import predict_matches
from astra_jax.spotting.inference import Predictor
from astra_jax.training.losses import LossConfig, losses

BATCH_SIZE = 32
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


def train(config: ConfigDict, halves: list[Half], steps: int) -> tuple[nn.Module, Any, float]:
    """The model, its parameters after `steps`, and the focal loss x 100 of the last 200 of them."""
    model = Convolution(
        int(config.clip.seconds * config.clip.positions_per_second), len(config.data.classes)
    )
    loss_config = LossConfig.from_config(config)
    optimizer = optax.adam(optax.cosine_decay_schedule(1e-3, steps))

    @partial(jax.jit, donate_argnums=0)
    def step(state: tuple[Any, Any], batch: dict[str, Any]) -> tuple[tuple[Any, Any], jax.Array]:
        def loss(params: Any) -> tuple[jax.Array, jax.Array]:
            parts = losses(
                model.apply({"params": params}, batch),
                batch["class_targets"],
                batch["displacements"],
                batch["displacement_mask"],
                loss_config,
            )
            return parts.total, parts.classification

        params, moments = state
        (_, value), gradients = jax.value_and_grad(loss, has_aux=True)(params)
        updates, moments = optimizer.update(gradients, moments, params)
        return (optax.apply_updates(params, updates), moments), value

    state, values = None, []
    for batch in TrainingStream(halves, config).batches(0, steps):
        if state is None:
            params = model.init(jax.random.key(config.seed), batch)["params"]
            state = params, optimizer.init(params)
        state, value = step(state, batch)
        values.append(value)
    return model, jax.device_get(state[0]), 100 * float(np.mean(jax.device_get(values[-200:])))


def score(
    config: ConfigDict, model: nn.Module, params: Any, split: str, norms: Normalizations
) -> tuple[float, float]:
    """Loose and tight Average-mAP on a split, in per cent."""
    spec = DataSpec.from_config(config.data)
    matches = load_split(config.data.splits[split], config.data.root)
    halves = normalized(index_halves(spec, matches, labelled=False), norms)
    labels = {m: read_raw_annotations(spec.labels_root / m / spec.labels_file) for m in matches}
    found = predict_matches(Predictor(config, model, params), halves, spec.classes)
    blocks = average_maps(labels, found, ("loose", "tight"), spec.classes)
    return 100 * blocks["loose"]["a_mAP"], 100 * blocks["tight"]["a_mAP"]


def main() -> None:
    """Prints a line a seed, then mean and standard deviation."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="configs/commentary.py")
    parser.add_argument("--root", required=True, help="folder of the config's matches")
    parser.add_argument("--split", default="valid")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--window-scale", type=float)
    parser.add_argument("--overlap", choices=("max", "mean"))
    args = parser.parse_args()
    scores = []
    for seed in args.seeds:
        config = load_config(args.config)
        config.seed, config.data.root, config.mixup.kind = seed, args.root, "none"
        config.training.batch_size = BATCH_SIZE
        if args.window_scale is not None:
            config.inference.suppression.window_scale = args.window_scale
        if args.overlap is not None:
            config.inference.overlap = args.overlap
        spec = DataSpec.from_config(config.data)
        halves = index_halves(spec, load_split(config.data.splits.train, args.root))
        norms = measure(halves)
        started = time.monotonic()
        model, params, loss = train(config, normalized(halves, norms), args.steps)
        seconds = time.monotonic() - started
        scores.append(score(config, model, params, args.split, norms))
        print(
            f"seed {seed}: loose {scores[-1][0]:.2f}, tight {scores[-1][1]:.2f} on {args.split}; "
            f"training focal loss x 100 {loss:.2f}, {seconds:.0f} s",
            flush=True,
        )
    mean, deviation = np.mean(scores, axis=0), np.std(scores, axis=0)
    print(
        f"mean of {len(scores)}: loose {mean[0]:.2f} (sd {deviation[0]:.2f}), tight {mean[1]:.2f} "
        f"(sd {deviation[1]:.2f})"
    )


if __name__ == "__main__":
    main()
