"""What attention, activations and gradients do in the first steps: two figures of small_data.md.

Run:  python experiments/look_inside.py --root COMMENTARY --out docs [--steps 1400]

Trains the variants below of configs/commentary.py, all with the focal loss, and prints, every
hundred steps, where the decoder's first cross-attention looks (share of its weight within 2 s of
the query's own time), how much of what the decoder hands to the heads depends on the clip at all,
and the gradients' size in each part. Draws the losses to OUT/small_data_loss.png and the attention
before and after to OUT/small_data_attention.png.
Needs matplotlib (`pip install -e '.[plots]'`).
"""

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float
from ml_collections import ConfigDict
from small_data import config_of

from astra_jax.devices import batch_sharding, put_batch
from astra_jax.model import ASTRA, ModelConfig
from astra_jax.model.layers import step_times
from astra_jax.runs.components import USUAL, build
from astra_jax.runs.folder import RunFolder
from astra_jax.runs.prepare import prepare
from astra_jax.runs.settings import Settings, resolve
from astra_jax.training.losses import LossConfig, losses

COMPARED = ("published_start", "no_shortcut", "committed")
EVERY = 100
NEAR_SECONDS = 2
NO_FOLDER = RunFolder(Path())
"""Nothing is written of these trainings."""


def _with_weights(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
    """Asks every attention to keep its weights."""
    if isinstance(context.module, nn.MultiHeadDotProductAttention):
        kwargs = kwargs | {"sow_weights": True}
    return call(*args, **kwargs)


def token_times(config: ModelConfig) -> Float[np.ndarray, " token"]:
    """When each token of the sources begins, in output positions, streams one after the other."""
    return np.concatenate(
        [
            np.repeat(step_times(source.rows, config.positions), len(source.widths))
            for source in config.sources
        ]
    )


@partial(jax.jit, static_argnums=0)
def inside(
    config: ModelConfig, params: Any, batch: Any
) -> tuple[Float[Array, "position token"], Float[Array, ""]]:
    """Mean cross-attention of the first decoder layer, and the content's share of its output.

    The share is the standard deviation over clips beside the root mean square of all.
    """
    model = ASTRA(config)
    with nn.intercept_methods(_with_weights):
        _, state = model.apply(
            {"params": params},
            batch,
            capture_intermediates=lambda module, _: module.name == "decoder",
            mutable=["intermediates"],
        )
    decoder = state["intermediates"]["decoder"]
    weights = decoder["layer_0"]["cross_attention"]["attention_weights"][0]
    queries = decoder["__call__"][0]
    share = jnp.sqrt(jnp.mean(jnp.var(queries, axis=0)) / jnp.mean(jnp.square(queries)))
    return weights.mean(axis=(0, 1)), share


@partial(jax.jit, static_argnums=(0, 1))
def gradient_norms(config: ModelConfig, loss_config: LossConfig, params: Any, batch: Any) -> Any:
    """Root mean square of the loss's gradient in each part of the model."""

    def loss(params: Any) -> Array:
        predictions = ASTRA(config).apply({"params": params}, batch)
        targets = (batch[k] for k in ("class_targets", "displacements", "displacement_mask"))
        return losses(predictions, *targets, loss_config).total

    gradients = jax.grad(loss)(params)

    def size(part: Any) -> Array:
        flat = jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(part)])
        return jnp.sqrt(jnp.mean(jnp.square(flat)))

    return {name: size(part) for name, part in gradients.items()}


def settings_of(config: ConfigDict) -> Settings:
    """What a run of `config` would use."""
    return Settings.from_config(resolve(config, NO_FOLDER))


def look(
    name: str, config: ConfigDict, steps: int
) -> tuple[list[Float[np.ndarray, "position token"]], list[float]]:
    """Trains and prints; the attention before and after, the losses of every hundred steps."""
    settings = settings_of(config)
    model, loss_config = settings.model, settings.loss
    stream = prepare(settings, NO_FOLDER, ASTRA(model)).stream
    run = build(settings, stream.steps_per_epoch, USUAL)
    state, sharding = run.state, batch_sharding(run.mesh)
    rate = config.clip.positions_per_second
    distance = np.abs(np.arange(model.positions)[:, None] - token_times(model)[None])
    maps, curve, values, looked_at = [], [], [], None
    for number, batch in enumerate(stream.batches(0, steps + 1)):
        looked_at = batch if looked_at is None else looked_at
        if number % EVERY == 0:
            weights, share = inside(model, state.params, looked_at)
            near = np.asarray(weights)[distance <= NEAR_SECONDS * rate].sum() / model.positions
            norms = gradient_norms(model, loss_config, state.params, looked_at)
            loss = 100 * float(np.mean(jax.device_get(values))) if values else float("nan")
            parts = ", ".join(f"{key} {float(norm):.1e}" for key, norm in norms.items())
            print(
                f"{name}, step {number}: focal loss {loss:.2f}, attention within "
                f"{NEAR_SECONDS} s {near:.2f}, content {float(share):.3f}; {parts}",
                flush=True,
            )
            maps.append(np.asarray(weights))
            curve += [loss] if values else []
            values = []
        if number < steps:
            state, told = run.step(state, put_batch(batch, sharding))
            values.append(told.losses[1])
    return [maps[0], maps[-1]], curve


def draw_losses(curves: dict[str, list[float]], path: Path) -> None:
    """Focal loss of every hundred steps."""
    figure, axis = plt.subplots(figsize=(6, 3.2), layout="constrained")
    for name, values in curves.items():
        axis.plot(EVERY * np.arange(1, len(values) + 1), values, label=name.replace("_", " "))
    axis.set_ylim(3.4, 4.6)
    axis.set_xlabel("step")
    axis.set_ylabel("focal loss x 100, training")
    axis.legend()
    figure.savefig(path, dpi=110)


def draw_attention(maps: dict[str, Any], seconds: float, times: dict[str, Any], path: Path) -> None:
    """Query time down, token time across; brighter is more attention."""
    figure, axes = plt.subplots(1, 2 * len(maps), figsize=(15, 2.8), layout="constrained")
    panels = [(name, when) for name in maps for when in (0, 1)]
    for axis, (name, when) in zip(axes, panels, strict=True):
        weights, rows = maps[name][when], int(seconds)
        image = np.zeros((len(weights), rows))
        # 1e-6: 58 of 100 positions of 50 s is second 29, however it rounds.
        second = np.minimum((times[name] / len(weights) * seconds + 1e-6).astype(int), rows - 1)
        np.add.at(image.T, second, weights.T)
        axis.imshow(image, aspect="auto", extent=(0, seconds, seconds, 0), cmap="viridis")
        axis.set_title(f"{name.replace('_', ' ')}, {('before', 'after')[when]}", fontsize=9)
        axis.set_xlabel("attended to, s")
    axes[0].set_ylabel("query, s")
    figure.savefig(path, dpi=110)


def main() -> None:
    """Prints the table and draws the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", required=True, help="folder of the config's matches")
    parser.add_argument("--out", type=Path, default=Path("docs"))
    parser.add_argument("--steps", type=int, default=1400)
    args = parser.parse_args()
    maps, times, curves = {}, {}, {}
    for name in COMPARED:
        config = config_of(name, 1, args.root)
        config.loss.focal = True  # one loss for all curves
        maps[name], curves[name] = look(name, config, args.steps)
        times[name] = token_times(settings_of(config).model)
    args.out.mkdir(parents=True, exist_ok=True)
    draw_losses(curves, args.out / "small_data_loss.png")
    draw_attention(maps, config.clip.seconds, times, args.out / "small_data_attention.png")


if __name__ == "__main__":
    main()
