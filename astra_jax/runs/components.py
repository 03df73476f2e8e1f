"""What a run is computed with, replaceable part by part."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jax.sharding import Mesh

from astra_jax.devices import local_mesh, make_mesh, put_batch
from astra_jax.model import ASTRA, ModelConfig, SpottingModel
from astra_jax.runs.settings import Settings
from astra_jax.runs.validate import make_validate
from astra_jax.spotting.programs import Programs
from astra_jax.training.loop import Trainer, Validate
from astra_jax.training.optimizer import make_optimizer
from astra_jax.training.state import TrainState, abstract_state, init_state
from astra_jax.training.step import TrainStep, make_train_step


@dataclass(frozen=True)
class Components:
    """How the parts of a run are made.

    Runs take these; a test puts something smaller, or something that records calls, in their place.
    """

    make_model: Callable[[ModelConfig], SpottingModel] = ASTRA
    make_mesh: Callable[[], Mesh] = make_mesh
    make_local_mesh: Callable[[], Mesh] = local_mesh
    make_optimizer: Callable[..., Any] = make_optimizer
    make_train_step: Callable[..., TrainStep] = make_train_step
    init_state: Callable[..., TrainState] = init_state
    put_batch: Callable[..., dict[str, Any]] = put_batch
    make_programs: Callable[[SpottingModel, Mesh], Programs] = Programs
    make_validate: Callable[..., Validate | None] = make_validate
    make_trainer: Callable[..., Trainer] = Trainer


USUAL = Components()
"""What every run outside of the tests is computed with."""


@dataclass(frozen=True)
class Computation:
    """A training's mesh, model and jitted step, and what its state is made by.

    `draw_state`: the state before step 0. `abstract_state`: its shapes, to restore onto; a run
    that goes on never holds another state beside its own.
    """

    mesh: Mesh
    model: SpottingModel
    step: TrainStep
    draw_state: Callable[[], TrainState]
    abstract_state: Callable[[], TrainState]


def build(settings: Settings, steps_per_epoch: int, components: Components) -> Computation:
    """Everything on the devices that a training of these settings needs."""
    mesh = components.make_mesh()
    model = components.make_model(settings.model)
    optimizer = components.make_optimizer(settings.optimizer, steps_per_epoch)
    step = components.make_train_step(
        model,
        settings.loss,
        optimizer,
        steps_per_epoch,
        mesh,
        average_decay=settings.training.average_decay,
        accumulation_steps=settings.training.accumulation_steps,
        freeze=settings.freeze,
    )
    parts: dict[str, Any] = {
        "averaged": settings.training.average_decay > 0,
        "freeze": settings.freeze,
    }
    return Computation(
        mesh,
        model,
        step,
        lambda: components.init_state(model, optimizer, settings.seed, mesh, **parts),
        lambda: abstract_state(model, optimizer, mesh, **parts),
    )
