"""The training state, its progress, and how it starts."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Key, UInt32

from astra_jax.devices import put_replicated, replicated
from astra_jax.model import SpottingModel, abstract_params
from astra_jax.training.freezing import partition
from astra_jax.training.packing import pack


@flax.struct.dataclass
class TrainState:
    """Everything that training carries from step to step.

    `key`: the data of the random key that every step draws from (`as_key`).
    `optimizer`: of the trained parameters, packed (`packing.pack`).
    `loss_sums`: total, classification and displacement loss summed over the epoch so far.
    `skipped`: steps that changed nothing: in the epoch so far, in a row until now, in all.
    `average`: the moving average of the parameters, None where the run keeps none.
    """

    step: Int[Array, ""]
    key: UInt32[Array, "2"]
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
    """What a step tells: total, classification and displacement loss; the norm of the gradients of
    all trained parameters, before any clipping; `TrainState.skipped`.
    """

    losses: Float[Array, "3"]
    gradient_norm: Float[Array, ""]
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


def init_state(
    model: SpottingModel,
    optimizer: optax.GradientTransformation,
    seed: int,
    mesh: Mesh,
    averaged: bool = False,
    freeze: Sequence[str] = (),
) -> TrainState:
    """The state before step 0, drawn from `seed` and placed on every device of `mesh`.

    The optimiser holds nothing of the parameters that `freeze` names.
    """
    params = model.initial_params(seed)
    placed = put_replicated(params, mesh)
    rest = functools.partial(_rest, optimizer, freeze)
    state: TrainState = jax.jit(rest, out_shardings=replicated(mesh))(placed)
    # A copy of its own: the state is donated.
    average = put_replicated(params, mesh) if averaged else None
    # What Threefry makes of a seed of 32 bits; nothing is compiled for it.
    key = put_replicated(np.array((0, seed), np.uint32), mesh)
    return dataclasses.replace(state, key=key, params=placed, average=average)


def abstract_state(
    model: SpottingModel,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    averaged: bool = False,
    freeze: Sequence[str] = (),
) -> TrainState:
    """Shapes, types and placement of `init_state`; nothing is computed, nothing takes memory."""
    everywhere = replicated(mesh)
    params = abstract_params(model, everywhere)
    state = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=everywhere),
        jax.eval_shape(functools.partial(_rest, optimizer, freeze), params),
    )
    key = jax.ShapeDtypeStruct((2,), jnp.uint32, sharding=everywhere)
    average = params if averaged else None
    return dataclasses.replace(state, key=key, params=params, average=average)


def _rest(
    optimizer: optax.GradientTransformation, freeze: Sequence[str], params: Any
) -> TrainState:
    """The state before step 0, all but its key, its parameters and their average."""
    return TrainState(
        step=jnp.zeros([], jnp.int32),
        key=None,  # type: ignore[arg-type]
        params=None,
        optimizer=optimizer.init(pack(partition(params, freeze)[0])),
        loss_sums=jnp.zeros(3, jnp.float32),
        skipped=jnp.zeros(3, jnp.int32),
    )


def as_key(data: UInt32[Array, "2"]) -> Key[Array, ""]:
    """The key of `TrainState.key`: Threefry's, whatever generator JAX is told to use by default."""
    return jax.random.wrap_key_data(data, impl="threefry2x32")


def with_params(state: TrainState, params: Any, mesh: Mesh) -> TrainState:
    """The state before step 0 with other parameters, NumPy arrays, in the average as well."""
    average = None if state.average is None else put_replicated(params, mesh)
    return dataclasses.replace(state, params=put_replicated(params, mesh), average=average)
