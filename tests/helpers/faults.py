"""What befalls a run in the middle, and the small runs that it befalls."""

import dataclasses
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flax import linen as nn
from helpers.components import SHARED, on_one_device
from helpers.linear import Linear
from helpers.tiny import tiny_config

from astra_jax import runs
from astra_jax.devices import put_batch
from astra_jax.runs.components import Components

CONFIG = Path(__file__).with_name("tiny.py")


class Heavy(Linear):
    """Its checkpoints take some room on the disk."""

    @nn.compact
    def __call__(self, inputs: dict[str, Any], train: bool = False) -> Any:
        self.param("ballast", nn.initializers.normal(), (10_000,))
        return super().__call__(inputs, train)


COMPONENTS = on_one_device(dataclasses.replace(SHARED, make_model=Heavy))


def command(root: Path, workdir: Path, *more: str) -> list[str]:
    """The arguments of a training of nine steps, three an epoch."""
    config = ["--config", str(CONFIG), f"--config.data.root={root}"]
    return ["train", *config, "--workdir", str(workdir), *more]


def undisturbed(root: Path, workdir: Path) -> Path:
    """The folder of a run that nothing befell."""
    runs.train(tiny_config(root), workdir, components=COMPONENTS)
    return workdir


def at_batch(change: Callable[[int, dict[str, Any]], dict[str, Any]]) -> Components:
    """Components that put `change(step, batch)` on the devices, the steps counted from 1."""
    taken = 0

    def put(batch: dict[str, Any], sharding: Any) -> dict[str, Any]:
        nonlocal taken
        taken += 1
        return put_batch(change(taken, batch), sharding)

    return dataclasses.replace(COMPONENTS, put_batch=put)


def at_step(number: int, act: Callable[[], object]) -> Components:
    """Components that call `act` before step `number` (from 1) is taken."""

    def acting(step: int, batch: dict[str, Any]) -> dict[str, Any]:
        if step == number:
            act()
        return batch

    return at_batch(acting)


def tell(number: int) -> None:
    """A signal to this process; the thread that takes it has had its time."""
    os.kill(os.getpid(), number)
    time.sleep(0.3)


def latest(workdir: Path) -> list[int]:
    """The steps of the latest checkpoints."""
    folder = workdir / "checkpoints" / "latest"
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())
