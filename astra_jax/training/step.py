"""One step of training: gradients, update, average, and whether it counts."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from astra_jax.devices import replicated
from astra_jax.model import SpottingModel
from astra_jax.training.freezing import combine, partition
from astra_jax.training.gradients import make_gradients
from astra_jax.training.losses import LossConfig
from astra_jax.training.packing import pack, unpack
from astra_jax.training.state import StepValues, TrainState, as_key


@runtime_checkable  # the tests check arguments as they are passed
class TrainStep(Protocol):
    """A jitted step: (state, batch) to (next state, what the step tells); see `make_train_step`."""

    def __call__(
        self, state: TrainState, batch: dict[str, Any]
    ) -> tuple[TrainState, StepValues]: ...

    def lower(self, state: TrainState, batch: dict[str, Any]) -> jax.stages.Lowered:
        """The step's program for such a state and batch, not yet compiled."""
        ...


def make_train_step(
    model: SpottingModel,
    loss_config: LossConfig,
    optimizer: optax.GradientTransformation,
    steps_per_epoch: int,
    mesh: Mesh,
    average_decay: float = 0.0,
    accumulation_steps: int = 1,
    freeze: Sequence[str] = (),
) -> TrainStep:
    """The jitted step: (state, batch) to (next state, what the step tells).

    A step whose loss or gradients are not finite is skipped: parameters, optimiser and average
    stay as they were, and the learning rate's count with them.

    The state is donated. Dropout and augmentation draw from the state's key and step alone, so a
    step repeats itself after a resume. With `average_decay` d the state's average follows the
    parameters as `d average + (1 - d) params`, d being at most (1 + step) / (10 + step) so that
    the first values are soon forgotten. `accumulation_steps` is for `make_gradients`. Parameters
    that `freeze` names stay what they are, to the bit; dropout falls on their outputs as ever.
    """
    gradients_of = make_gradients(model, loss_config, mesh, accumulation_steps, freeze)

    def step(state: TrainState, batch: dict[str, Any]) -> tuple[TrainState, StepValues]:
        key = jax.random.fold_in(as_key(state.key), state.step)
        gradients, values = gradients_of(state.params, batch, key)
        trained, frozen = partition(state.params, freeze)
        packed = pack(gradients)
        updates, optimizer_state = optimizer.update(packed, state.optimizer, pack(trained))
        # A norm that overflows is as bad as an infinite value: no square root of it would do. With
        # finite gradients the new parameters are finite, too.
        norm = optax.tree.norm(packed)
        taken = jnp.isfinite(jnp.stack([values[0], norm])).all()

        def choose(new: Any, old: Any) -> Any:
            return jax.tree.map(lambda new, old: jnp.where(taken, new, old), new, old)

        trained = choose(optax.apply_updates(trained, unpack(updates, trained)), trained)
        params, average = combine(trained, frozen), state.average
        if average is not None:
            ended = state.step.astype(jnp.float32)  # else of 64 bits, where JAX has them enabled
            decay = jnp.minimum(average_decay, (1 + ended) / (10 + ended))
            followed, _ = partition(average, freeze)
            moved = jax.tree.map(lambda a, p: decay * a + (1 - decay) * p, followed, trained)
            average = combine(choose(moved, followed), frozen)
        epoch_starts = state.step % steps_per_epoch == 0
        sums = jnp.where(epoch_starts, 0.0, state.loss_sums) + jnp.where(taken, values, 0.0)
        skipped = jnp.where(epoch_starts, state.skipped.at[0].set(0), state.skipped)
        skipped = jnp.where(taken, skipped.at[1].set(0), skipped + 1)
        state = TrainState(
            state.step + 1,
            state.key,
            params,
            choose(optimizer_state, state.optimizer),
            sums,
            skipped,
            average,
        )
        return state, StepValues(values, norm, skipped)

    everywhere = replicated(mesh)
    return jax.jit(step, donate_argnums=0, out_shardings=(everywhere, everywhere))
