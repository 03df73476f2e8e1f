"""Steps of a framework as benchmarks/speed.py measures them. Imports no framework."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True)
class Request:
    """What a process is to prepare.

    `framework`: "ours", "torch" or "torch compiled". `mode`: "train", "forward", or "product", of
    two square matrices of `clips` rows. `config`: a config file of ours. `sizes`: those of the
    twin, as JSON has them. `device`: "cpu" or "gpu".
    """

    framework: str
    mode: str
    device: str
    dtype: str
    clips: int
    config: str = ""
    sizes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Steps:
    """`take` begins a step, `wait` ends when all steps have; `told`: what is known of one."""

    take: Callable[[], object]
    wait: Callable[[], object]
    told: dict[str, Any] = field(default_factory=dict)


class Framework(Protocol):
    """What a module of one framework offers."""

    def prepare(self, request: Request, batch: dict[str, Any] | None) -> Steps:
        """Steps on these arrays (None for a product)."""
        ...

    def forget_peak(self) -> None:
        """Counts the device's peak of memory from here on, where that can be."""
        ...

    def peak_bytes(self) -> int | None:
        """The peak of the device's memory; None: it is the host's."""
        ...

    def count_kernels(self, steps: Steps, count: int) -> dict[str, float]:
        """Kernels a step, and the milliseconds they take, from a trace of `count` steps."""
        ...
