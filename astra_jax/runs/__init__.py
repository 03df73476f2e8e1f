"""Runs and their folders: `train(config, workdir)` and `evaluate(workdir, split, out)`.

Both are imported when they are asked for: JAX takes seconds, and a list of runs needs none of it.
"""

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from astra_jax.runs.evaluate import evaluate
    from astra_jax.runs.train import train

__all__ = ["evaluate", "train"]


class _Runs(ModuleType):
    """The package, whose `train` and `evaluate` are functions, and not the files named like them.

    Python sets a package's attribute to each file of it that is imported.
    """

    @property
    def train(self) -> Any:
        from astra_jax.runs.train import train

        return train

    @train.setter
    def train(self, file: ModuleType) -> None:
        del file

    @property
    def evaluate(self) -> Any:
        from astra_jax.runs.evaluate import evaluate

        return evaluate

    @evaluate.setter
    def evaluate(self, file: ModuleType) -> None:
        del file


sys.modules[__name__].__class__ = _Runs
