"""The devices of a run: mesh, shardings, copies to and from the host, which process speaks."""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Shaped

P = ParamSpec("P")
R = TypeVar("R")


def in_32_bits(function: Callable[P, R]) -> Callable[P, R]:
    """A function that computes in 32 bits, also where JAX has 64 enabled (JAX_ENABLE_X64).

    The same config is the same run then, and its checkpoints fit: with 64 bits enabled JAX draws
    other random numbers, for dropout as well.
    """

    @functools.wraps(function)
    def narrowed(*args: P.args, **kwargs: P.kwargs) -> R:
        with jax.enable_x64(False):
            return function(*args, **kwargs)

    return narrowed


def make_mesh(devices: list[jax.Device] | None = None) -> Mesh:
    """A mesh of all devices (or of those given) along the axis `data`."""
    devices = jax.devices() if devices is None else devices
    # Linen with dropout fails under the default, explicit sharding.
    return jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices)


def local_mesh() -> Mesh:
    """A mesh of the devices of this process."""
    return make_mesh(jax.local_devices())


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of what every device holds whole: state and metrics."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding of a batch: clips are split over the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def put_batch(batch: dict[str, Any], sharding: jax.sharding.Sharding) -> dict[str, Any]:
    """The global batch on the devices, from this process's slice of it; axis 0 is split.

    The devices of the sharding must divide the global batch.
    """
    if jax.process_count() == 1:
        return jax.device_put(batch, sharding)  # all arrays in one call: half the host's time
    return jax.tree.map(
        lambda array: jax.make_array_from_process_local_data(sharding, np.asarray(array)), batch
    )


def abstract_batch(
    example: dict[str, Any], sharding: jax.sharding.Sharding, clips: int
) -> dict[str, Any]:
    """What `put_batch` makes of batches such as `example`, which may have fewer than `clips`.

    Shapes, types and placement; nothing goes onto the devices.
    """
    # JAX's own types: in 32 bits a double becomes a float.
    shapes = jax.eval_shape(lambda batch: batch, example)
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((clips, *leaf.shape[1:]), leaf.dtype, sharding=sharding),
        shapes,
    )


def host_copy(params: Any) -> Any:
    """Parameters as NumPy arrays; each process holds all of them."""
    return jax.tree.map(lambda leaf: np.asarray(leaf.addressable_data(0)), params)


def put_replicated(tree: Any, mesh: Mesh) -> Any:
    """NumPy arrays, the same in every process, whole on every device of `mesh`."""
    sharding = replicated(mesh)

    def put(leaf: Shaped[np.ndarray, "*shape"]) -> Shaped[Array, "*shape"]:
        return jax.make_array_from_callback(leaf.shape, sharding, lambda index: leaf[index])

    return jax.tree.map(put, tree)


def put_on_local(tree: Any, mesh: Mesh) -> Any:
    """Arrays whole on every device of `mesh`, which is of this process.

    They are NumPy arrays, or arrays that all devices hold whole: what the mesh's devices hold
    already is taken as it is, nothing is copied. So it is gone when those arrays are donated.
    """
    sharding, devices = replicated(mesh), list(mesh.devices.flat)

    def put(leaf: Shaped[Array | np.ndarray, "*shape"]) -> Shaped[Array, "*shape"]:
        if isinstance(leaf, jax.Array):
            held = {shard.device: shard.data for shard in leaf.addressable_shards}
            if leaf.is_fully_replicated and set(devices) <= set(held):
                parts = [held[device] for device in devices]
                return jax.make_array_from_single_device_arrays(leaf.shape, sharding, parts)
            leaf = np.asarray(leaf.addressable_data(0))
        return jax.device_put(leaf, sharding)

    return jax.tree.map(put, tree)


def is_first_process() -> bool:
    """Whether this process is the one that talks to the user and writes the run's files."""
    return jax.process_index() == 0


def wait_for_all(what: str) -> None:
    """Waits until every process is here; `what` has happened then."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(what)


def ask_first_process(answer: bool) -> bool:
    """The first process's answer, in every process."""
    if jax.process_count() == 1:
        return answer
    return bool(multihost_utils.broadcast_one_to_all(np.asarray(answer)))
