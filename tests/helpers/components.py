"""What tests compute runs with: one device, programs that runs share, a smaller model."""

import dataclasses
import functools
from typing import Any

import jax

from astra_jax.devices import make_mesh
from astra_jax.runs.components import Components
from astra_jax.spotting.programs import Programs
from astra_jax.training.optimizer import make_optimizer
from astra_jax.training.state import init_state
from astra_jax.training.step import make_train_step


@functools.cache
def one_device() -> Any:
    """A mesh of the first device alone: eight cost several times as much."""
    return make_mesh(jax.devices()[:1])


def on_one_device(components: Components = Components()) -> Components:  # noqa: B008
    """Components whose runs take the first device alone."""
    return dataclasses.replace(components, make_mesh=one_device, make_local_mesh=one_device)


@functools.cache
def _state_once(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
    state = init_state(*args, **kwargs)
    return jax.device_get(state), jax.tree.map(lambda leaf: leaf.sharding, state)


def _copy_of_state(*args: Any, **kwargs: Any) -> Any:
    # A copy: the state is donated.
    return jax.device_put(*_state_once(*args, **kwargs))


SHARED = Components(
    make_optimizer=functools.cache(make_optimizer),
    make_train_step=functools.cache(make_train_step),
    init_state=_copy_of_state,
    make_programs=functools.cache(Programs),
)
"""Runs of one config share their traced programs, and the state they start from: tracing a tiny run
takes longer than the run, each time that it is started."""
