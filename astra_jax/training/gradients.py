"""The losses of a batch and their gradients, computed whole or in parts one after the other."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int, Key

from astra_jax.data.mixing import finish_mixing
from astra_jax.model import SpottingModel
from astra_jax.training.freezing import combine, partition
from astra_jax.training.losses import LossConfig, losses
from astra_jax.training.random_bits import cheap_key

# (parameters, batch, key) to (gradients, the total, classification and displacement loss).
Gradients = Callable[[Any, dict[str, Any], Key[Array, ""]], tuple[Any, Float[Array, "3"]]]


def make_gradients(
    model: SpottingModel,
    loss_config: LossConfig,
    mesh: Mesh,
    parts: int = 1,
    freeze: Sequence[str] = (),
) -> Gradients:
    """What a training step asks of a batch: gradients and losses, for use inside `jax.jit`.

    With `parts` above 1 the batch is computed in that many parts of equal size, with the memory
    of one: the result is that of the whole batch up to rounding, but for dropout and
    augmentation, which draw from other keys. `parts` times the devices of `mesh` must divide the
    batch. Parameters that `freeze` names have None for a gradient (`freezing.partition`), and
    nothing is computed for them on the way back.
    """

    def of_part(
        params: Any, batch: dict[str, Any], key: Key[Array, ""]
    ) -> tuple[Any, Float[Array, "3"]]:
        batch = finish_mixing(batch)
        dropout, augment = map(cheap_key, jax.random.split(key))
        trained, frozen = partition(params, freeze)

        def loss(trained: Any) -> tuple[Float[Array, ""], Float[Array, "3"]]:
            rngs = {"dropout": dropout, "augment": augment}
            predictions: Any = model.apply(
                {"params": combine(trained, frozen)}, batch, train=True, rngs=rngs
            )
            found = losses(
                predictions,
                batch["class_targets"],
                batch["displacements"],
                batch["displacement_mask"],
                loss_config,
            )
            return found.total, jnp.stack([found.total, found.classification, found.displacement])

        (_, values), gradients = jax.value_and_grad(loss, has_aux=True)(trained)
        return gradients, values

    if parts == 1:
        return of_part

    def of_batch(
        params: Any, batch: dict[str, Any], key: Key[Array, ""]
    ) -> tuple[Any, Float[Array, "3"]]:
        take = _splitter(batch, parts, mesh)

        def add(sums: Any, part: Int[Array, ""]) -> tuple[Any, None]:
            found = of_part(params, take(part), jax.random.fold_in(key, part))
            return jax.tree.map(jnp.add, sums, found), None

        zeros = (
            jax.tree.map(jnp.zeros_like, partition(params, freeze)[0]),
            jnp.zeros(3, jnp.float32),
        )
        sums, _ = jax.lax.scan(add, zeros, jnp.arange(parts))
        return jax.tree.map(lambda total: total / parts, sums)

    return of_batch


def _splitter(
    batch: dict[str, Any], parts: int, mesh: Mesh
) -> Callable[[Int[Array, ""]], dict[str, Any]]:
    """A function that gives part k of `batch`: its clips k, k + parts, k + 2 parts, ...

    So each device has as many clips of each part as of any other, and none moves to another one.
    """
    split = NamedSharding(mesh, PartitionSpec("data"))
    grouped = jax.tree.map(
        lambda array: jax.lax.with_sharding_constraint(
            array.reshape(array.shape[0] // parts, parts, *array.shape[1:]), split
        ),
        batch,
    )

    def take(part: Int[Array, ""]) -> dict[str, Any]:
        return jax.tree.map(
            lambda array: jax.lax.with_sharding_constraint(
                jax.lax.dynamic_index_in_dim(array, part, axis=1, keepdims=False), split
            ),
            grouped,
        )

    return take
