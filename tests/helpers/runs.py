"""What tests of whole runs share: one that is finished, and what they look at."""

import dataclasses
import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from helpers.components import SHARED, on_one_device
from helpers.linear import Linear
from helpers.tiny import tiny_config, write_data

from astra_jax import runs
from astra_jax.errors import UserError
from astra_jax.runs.components import Components

ASTRA = on_one_device(SHARED)
LINEAR = dataclasses.replace(ASTRA, make_model=Linear)
"""For runs that needn't be ASTRA's: seconds become tenths."""


@dataclass(frozen=True)
class FinishedRun:
    """A run of ASTRA on one device, three epochs, and its evaluation."""

    root: Path
    workdir: Path
    out: Path
    summary: dict
    blocks: dict


@functools.cache
def finished_run(folder: Path) -> FinishedRun:
    """The run in a folder: for all modules of a session that name the same."""
    root, workdir, out = folder / "data", folder / "runs" / "tiny", folder / "out"
    write_data(root)
    summary = runs.train(tiny_config(root), workdir, components=ASTRA)
    blocks = runs.evaluate(workdir, "test", out, components=ASTRA)
    return FinishedRun(root, workdir, out, summary, blocks)


class GivenScores:
    """A validation that computes nothing."""

    def __init__(self, scores: Sequence[float]) -> None:
        self._given = iter(scores)

    def __call__(self, params: Any) -> dict[str, float]:
        return dict.fromkeys(("score", "tight", "loose"), next(self._given))

    def try_out(self, params: Any) -> None:
        pass


def with_scores(scores: Sequence[float], components: Components = LINEAR) -> Components:
    """Components whose validations give these scores, in order."""
    validate = GivenScores(scores)
    return dataclasses.replace(components, make_validate=lambda *args: validate)


def lines(path: Path) -> list[dict]:
    """The JSON objects of a file, one a line."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Bytes and time of every file."""
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def steps_in(folder: Path) -> list[int]:
    """Of the checkpoints in a folder."""
    return sorted(int(path.name) for path in folder.iterdir())


def refused(*words: str) -> "pytest.RaisesExc":
    """Expects a UserError of one line that has these words."""

    def right(error: UserError) -> bool:
        return "\n" not in str(error) and all(word in str(error) for word in words)

    return pytest.raises(UserError, check=right)
