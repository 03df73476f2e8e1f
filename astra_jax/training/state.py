"""The training state, how it starts, and one step of it."""

import dataclasses
from typing import Any, Protocol, runtime_checkable

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int, Key

from astra_jax.model import ASTRA, ModelConfig
from astra_jax.model.start import apply_start
from astra_jax.training.gradients import make_gradients
from astra_jax.training.losses import LossConfig


@flax.struct.dataclass
class TrainState:
    """Everything that training carries from step to step.

    `loss_sums`: total, classification and displacement loss summed over the epoch so far.
    `skipped`: steps that changed nothing: in the epoch so far, in a row until now, in all.
    `average`: the moving average of the parameters, None where the run keeps none.
    """

    step: Int[Array, ""]
    params: Any
    optimizer: Any
    loss_sums: Float[Array, "3"]
    skipped: Int[Array, "3"]
    average: Any = None

    @property
    def eval_params(self) -> Any:
        """What is validated, saved as best and predicts: the average, where there is one."""
        return self.params if self.average is None else self.average


@flax.struct.dataclass
class StepValues:
    """What a step tells: total, classification and displacement loss; `TrainState.skipped`."""

    losses: Float[Array, "3"]
    skipped: Int[Array, "3"]


@dataclasses.dataclass
class Progress:
    """What the loop remembers beside the state; kept in each latest checkpoint.

    `epochs`: those that have ended, their validation included.
    """

    epochs: int = 0
    best_score: float | None = None
    best_epoch: int = 0
    seconds: float = 0.0
    finished: bool = False

    @classmethod
    def from_json(cls, content: Any) -> "Progress":
        """What a checkpoint keeps; ValueError where it is something else."""
        kinds = {"epochs": int, "best_epoch": int, "seconds": float | int, "finished": bool}
        fields = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(content, dict) or content.keys() != fields:
            raise ValueError(f"its progress must have the fields {', '.join(sorted(fields))}")
        for name, kind in kinds.items():
            if not isinstance(content[name], kind):
                raise ValueError(f"its progress has {name} {content[name]!r}")
        return cls(**content)


@runtime_checkable  # the tests check arguments as they are passed
class TrainStep(Protocol):
    """A jitted step: (state, batch) to (next state, what the step tells); see `make_train_step`."""

    def __call__(
        self, state: TrainState, batch: dict[str, Any]
    ) -> tuple[TrainState, StepValues]: ...

    def lower(self, state: TrainState, batch: dict[str, Any]) -> jax.stages.Lowered:
        """The step's program for such a state and batch, not yet compiled."""
        ...


def make_mesh(devices: list[jax.Device] | None = None) -> Mesh:
    """A mesh of all devices (or of those given) along the axis `data`."""
    devices = jax.devices() if devices is None else devices
    # Linen with dropout fails under the default, explicit sharding.
    return jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of what every device holds whole: state and metrics."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding of a batch: clips are split over the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def example_inputs(config: ModelConfig) -> dict[str, Any]:
    """Zeros of the shapes the model takes, one clip."""
    return {
        "features": tuple(jnp.zeros((1, s.rows, s.width)) for s in config.sources),
        "log_mel": None
        if config.audio is None
        else jnp.zeros((1, config.audio.frames, config.audio.mels)),
    }


def init_params(config: ModelConfig, key: Key[Array, ""]) -> Any:
    """Fresh parameters of `ASTRA(config)`."""
    params = ASTRA(config).init(key, example_inputs(config), train=False)["params"]
    return apply_start(params, config)


def abstract_params(config: ModelConfig, sharding: NamedSharding) -> Any:
    """Shapes, types and placement of the parameters; nothing is computed."""
    shapes = jax.eval_shape(lambda key: init_params(config, key), jax.random.key(0))
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), shapes
    )


def parameter_count(params: Any) -> int:
    """How many numbers a tree of parameters holds."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def init_state(
    config: ModelConfig,
    optimizer: optax.GradientTransformation,
    seed: int,
    mesh: Mesh,
    averaged: bool = False,
) -> TrainState:
    """The state before step 0, drawn from `seed` and placed on every device of `mesh`."""

    def init(key: Key[Array, ""]) -> TrainState:
        params = init_params(config, key)
        return TrainState(
            jnp.zeros([], jnp.int32),
            params,
            optimizer.init(params),
            jnp.zeros(3, jnp.float32),
            jnp.zeros(3, jnp.int32),
            # A copy of its own: the state is donated.
            jax.tree.map(jnp.copy, params) if averaged else None,
        )

    return jax.jit(init, out_shardings=replicated(mesh))(jax.random.key(seed))


def host_copy(params: Any) -> Any:
    """Parameters as NumPy arrays; each process holds all of them."""
    return jax.tree.map(lambda leaf: np.asarray(leaf.addressable_data(0)), params)


def with_params(state: TrainState, params: Any, mesh: Mesh) -> TrainState:
    """The state before step 0 with other parameters, NumPy arrays, in the average as well."""
    sharding = replicated(mesh)

    def place(leaf: Float[np.ndarray, "..."]) -> Float[Array, "..."]:
        return jax.make_array_from_callback(leaf.shape, sharding, lambda index: leaf[index])

    average = None if state.average is None else jax.tree.map(place, params)
    return dataclasses.replace(state, params=jax.tree.map(place, params), average=average)


def make_train_step(
    config: ModelConfig,
    loss_config: LossConfig,
    optimizer: optax.GradientTransformation,
    steps_per_epoch: int,
    seed: int,
    mesh: Mesh,
    average_decay: float = 0.0,
    accumulation_steps: int = 1,
) -> TrainStep:
    """The jitted step: (state, batch) to (next state, what the step tells).

    A step whose loss, gradients or new parameters are not finite is skipped: parameters,
    optimiser and average stay as they were, and the learning rate's count with them.

    The state is donated. Dropout and augmentation draw from (seed, step) alone, so a step
    repeats itself after a resume. With `average_decay` d the state's average follows the
    parameters as `d average + (1 - d) params`, d being at most (1 + step) / (10 + step) so that
    the first values are soon forgotten. `accumulation_steps` is for `make_gradients`.
    """
    gradients_of = make_gradients(config, loss_config, mesh, accumulation_steps)
    base_key = jax.random.key(seed)

    def step(state: TrainState, batch: dict[str, Any]) -> tuple[TrainState, StepValues]:
        key = jax.random.fold_in(base_key, state.step)
        gradients, values = gradients_of(state.params, batch, key)
        updates, optimizer_state = optimizer.update(gradients, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        average = state.average
        if average is not None:
            decay = jnp.minimum(average_decay, (1 + state.step) / (10 + state.step))
            average = jax.tree.map(lambda a, p: decay * a + (1 - decay) * p, average, params)
        # A norm that overflows is as bad as an infinite value: no square root of it would do.
        norms = optax.tree.norm(gradients), optax.tree.norm(params)
        taken = jnp.isfinite(jnp.stack([values[0], *norms])).all()
        params, optimizer_state, average = jax.tree.map(
            lambda new, old: jnp.where(taken, new, old),
            (params, optimizer_state, average),
            (state.params, state.optimizer, state.average),
        )
        epoch_starts = state.step % steps_per_epoch == 0
        sums = jnp.where(epoch_starts, 0.0, state.loss_sums) + jnp.where(taken, values, 0.0)
        skipped = jnp.where(epoch_starts, state.skipped.at[0].set(0), state.skipped)
        skipped = jnp.where(taken, skipped.at[1].set(0), skipped + 1)
        state = TrainState(state.step + 1, params, optimizer_state, sums, skipped, average)
        return state, StepValues(values, skipped)

    everywhere = replicated(mesh)
    return jax.jit(step, donate_argnums=0, out_shardings=(everywhere, everywhere))
