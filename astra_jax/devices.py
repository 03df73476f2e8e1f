"""The devices of a run: mesh, shardings, copies to and from the host, which process speaks."""

from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec


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


def host_copy(params: Any) -> Any:
    """Parameters as NumPy arrays; each process holds all of them."""
    return jax.tree.map(lambda leaf: np.asarray(leaf.addressable_data(0)), params)


def put_batch(batch: dict[str, Any], sharding: jax.sharding.Sharding) -> dict[str, Any]:
    """The global batch on the devices, from this process's slice of it; axis 0 is split.

    The devices of the sharding must divide the global batch.
    """
    return jax.tree.map(
        lambda array: jax.make_array_from_process_local_data(sharding, np.asarray(array)), batch
    )


def speaks() -> bool:
    """Whether this process is the one that talks to the user and writes the run's files."""
    return jax.process_index() == 0
