"""Adam with the AMSGrad of PyTorch, weight decay, clipping, warm-up and cosine (section 4.3)."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from astra_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """Adam and its schedule.

    `learning_rate` is the peak, for this batch size. `warmup_epochs` and `epochs` are the
    schedule's, which is constant within an epoch ("epoch") or moves at every "step".
    `clip_norm`: largest norm of all gradients, None for any.
    """

    learning_rate: float
    epochs: int
    schedule: str
    warmup_epochs: int
    weight_decay: float
    clip_norm: float | None
    amsgrad: bool

    @classmethod
    def from_config(
        cls, optimizer: Mapping[str, Any], epochs: int, batch_size: int
    ) -> "OptimizerConfig":
        """Reads the config's section `optimizer`.

        The rate there is that of batches of 8: it grows by sqrt(batch / 8).

        Raises:
            UserError: another schedule, or a warm-up that is as long as the training.
        """
        fields = dict(optimizer)
        rate = fields.pop("learning_rate") * math.sqrt(batch_size / 8)
        config = cls(learning_rate=rate, epochs=epochs, **fields)
        if not 0 <= config.warmup_epochs < epochs:
            raise UserError(
                f"config.optimizer.warmup_epochs: {config.warmup_epochs}, it must be below "
                f"training.epochs ({epochs})"
            )
        if config.schedule not in ("epoch", "step"):
            raise UserError(
                f"config.optimizer.schedule: {config.schedule!r}, not 'epoch' or 'step'"
            )
        return config


class AmsgradState(NamedTuple):
    """Step count, first and second moments, and the running maximum of the second."""

    count: Int[Array, ""]  # type: ignore[assignment]  # hides tuple.count, as optax's states do
    mu: PyTree[Float[Array, "..."]]
    nu: PyTree[Float[Array, "..."]]
    nu_max: PyTree[Float[Array, "..."]]


def scale_by_amsgrad(
    b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8
) -> optax.GradientTransformation:
    """AMSGrad as PyTorch computes it, which `optax.scale_by_amsgrad` does not.

    The running maximum is of the uncorrected second moment and is bias-corrected afterwards:
    `m / (1 - b1^t) / (sqrt(max nu / (1 - b2^t)) + eps)`.
    """

    def init(params: optax.Params) -> AmsgradState:
        mu, nu, nu_max = (jax.tree.map(jnp.zeros_like, params) for _ in range(3))
        return AmsgradState(jnp.zeros([], jnp.int32), mu, nu, nu_max)

    def update(
        updates: optax.Updates, state: AmsgradState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, AmsgradState]:
        del params
        count = optax.safe_increment(state.count)
        mu = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mu, updates)
        nu = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g * g, state.nu, updates)
        nu_max = jax.tree.map(jnp.maximum, state.nu_max, nu)
        # expm1, because 1 - 0.999**t loses four digits in float32.
        first = -jnp.expm1(count * math.log(b1))
        second = -jnp.expm1(count * math.log(b2))
        scaled = jax.tree.map(lambda m, v: (m / first) / (jnp.sqrt(v / second) + eps), mu, nu_max)
        return scaled, AmsgradState(count, mu, nu, nu_max)

    return optax.GradientTransformation(init, update)


def learning_rate_schedule(config: OptimizerConfig, steps_per_epoch: int) -> optax.Schedule:
    """The learning rate of each step (from 0): linear warm-up, then a cosine to zero.

    `schedule = "epoch"` is constant within an epoch as published: `lr e/w` in warm-up epochs
    e = 1..w, then `lr (1 + cos(pi (e-w)/(E-w))) / 2`, so the last epoch trains at exactly 0.
    `"step"` moves at every step of the same curve.
    """
    scale = 1 if config.schedule == "epoch" else steps_per_epoch
    curve = optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=config.learning_rate,
        warmup_steps=config.warmup_epochs * scale,
        decay_steps=config.epochs * scale,
    )
    if config.schedule == "epoch":
        return lambda step: curve(step // steps_per_epoch + 1)
    return lambda step: curve(step + 1)


def learning_rate_at(config: OptimizerConfig, steps_per_epoch: int) -> Callable[[int], float]:
    """`learning_rate_schedule` on the host, for telling: in double precision, by no device."""
    by_epoch = config.schedule == "epoch"
    scale = 1 if by_epoch else steps_per_epoch
    warmup, end = config.warmup_epochs * scale, config.epochs * scale

    def rate(step: int) -> float:
        count = (step // steps_per_epoch if by_epoch else step) + 1
        if count < warmup:
            return config.learning_rate * count / warmup
        done = min(1.0, (count - warmup) / (end - warmup))
        return config.learning_rate * (1 + math.cos(math.pi * done)) / 2

    return rate


def make_optimizer(config: OptimizerConfig, steps_per_epoch: int) -> optax.GradientTransformation:
    """Adam with weight decay of every parameter, one group.

    The decay is added to the gradient, as published. `clip_norm` scales gradients down to that norm
    over all parameters, before any decay, as PyTorch's users do.
    """
    adam = scale_by_amsgrad() if config.amsgrad else optax.scale_by_adam()
    decay = optax.add_decayed_weights(config.weight_decay)
    clip = () if config.clip_norm is None else (optax.clip_by_global_norm(config.clip_norm),)
    return optax.chain(
        *clip,
        decay,
        adam,
        optax.scale_by_learning_rate(learning_rate_schedule(config, steps_per_epoch)),
    )
