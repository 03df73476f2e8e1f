"""Sources at mean 0 and standard deviation 1, by what the training matches hold.

Every column is centred; all columns of a source are divided by one number, the root of their mean
variance. Dividing each by its own would make columns that say little as loud as the others: on
weak features that cost 1.7 of 22 points of loose Average-mAP (docs/small_data.md).
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from astra_jax.data.halves import Half, Normalization
from astra_jax.errors import UserError
from astra_jax.files import write_atomically

ROWS = 50_000
"""Rows looked at in each source, spread over all halves."""

Normalizations = tuple[Normalization | None, ...]
"""One a source, None for one that is taken as it is."""


def measure_normalizations(halves: Sequence[Half]) -> Normalizations:
    """Mean of the columns of every source and their common deviation, over rows of all halves.

    Reads about `ROWS` rows a source, one stretch from the middle of each half, so it takes
    seconds on any data set. A source whose spec says `normalize=False` is not read.
    Errors: UserError as `ArrayFile.read`.
    """
    spec = halves[0].spec
    per_half = -(-ROWS // len(halves))
    return tuple(
        _measure_source(halves, index, per_half) if source.normalize else None
        for index, source in enumerate(spec.sources)
    )


def _measure_source(halves: Sequence[Half], index: int, per_half: int) -> Normalization:
    width = halves[0].spec.sources[index].width
    count, total, squares = 0, np.zeros(width), np.zeros(width)
    for half in halves:
        file = half.sources[index]
        if file is None or file.rows == 0:
            continue
        rows = min(per_half, file.rows)
        first = (file.rows - rows) // 2
        values = file.read(first, first + rows).astype(np.float64)
        count += len(values)
        total = total + values.sum(axis=0)
        squares = squares + np.square(values).sum(axis=0)
    mean = total / count
    variance = np.mean(np.maximum(squares / count - np.square(mean), 0))
    deviation = np.sqrt(variance) if variance > 0 else 1.0
    return Normalization(mean.astype(np.float32), np.float32(deviation))


def normalize(halves: Sequence[Half], normalizations: Normalizations) -> list[Half]:
    """The same halves, with sources that are normalised as they are read.

    Errors: UserError where the statistics are of other sources.
    """
    for half in halves[:1]:
        widths = [source.width for source in half.spec.sources]
        of = [
            width if n is None else n.mean.size
            for n, width in zip(normalizations, widths, strict=False)
        ]
        if len(normalizations) != len(widths) or of != widths:
            raise UserError(
                "the run's normalisation: its statistics are of other sources than the config's "
                "(data.sources): use the run's own config, or another --workdir"
            )
    return [replace(half, normalizations=normalizations) for half in halves]


def save_normalizations(path: Path, normalizations: Normalizations) -> None:
    """Writes them as JSON: numbers come back exactly as they were."""
    content = [
        None if item is None else {"mean": item.mean.tolist(), "scale": float(item.scale)}
        for item in normalizations
    ]
    write_atomically(path, json.dumps(content) + "\n")


def load_normalizations(path: Path) -> Normalizations:
    """What `save_normalizations` wrote. Errors: UserError where the file is absent or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return tuple(
            None
            if item is None
            else Normalization(np.asarray(item["mean"], np.float32), np.float32(item["scale"]))
            for item in content
        )
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"{path}: not readable as the normalisation of a run; train again, or copy it from "
            "the folder that the run was trained in"
        ) from error
