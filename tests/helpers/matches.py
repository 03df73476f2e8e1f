"""Small matches written to disk in the SoccerNet layout, and configs that read them."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from astra_jax.config.classes import CLASSES
from astra_jax.data.halves import Half
from astra_jax.data.index import index_halves
from astra_jax.data.loader import StreamConfig
from astra_jax.data.mixup import MixupConfig
from astra_jax.data.sources import DataSpec
from astra_jax.data.targets import ClipConfig, TargetSpec

WIDE, FAST = "{half}_wide.npy", "{half}_fast.npy"
MATCH = "league/season/A - B"
MELS = 4


def annotation(half: int, milliseconds: int, label: str = "Goal", **more: Any) -> dict[str, Any]:
    """One entry of a label file."""
    clock = f"{half} - {milliseconds // 60000:02d}:{milliseconds // 1000 % 60:02d}"
    entry = {"gameTime": clock, "label": label, "position": str(milliseconds), "team": "home"}
    return entry | {"visibility": "visible"} | more


def write_match(
    root: Path,
    match: str = MATCH,
    seconds: Sequence[int] = (120, 120),
    annotations: Iterable[dict[str, Any]] = (),
    audio: bool = True,
    seed: int = 0,
) -> Path:
    """Halves of 6 columns at 1 row a second, 3 at 2 a second, 4 mel bands; their folder.

    Value (row, column) of a source is `row + column / 10 + 1000 * half + seed`, frames of mel
    power are alike, so that what was read tells where it came from.
    """
    folder = root / match
    folder.mkdir(parents=True, exist_ok=True)
    for half, length in enumerate(seconds, start=1):
        base = 1000 * half + seed
        np.save(folder / WIDE.format(half=half), grid(length, 6) + base)
        np.save(folder / FAST.format(half=half), grid(2 * length, 3) + base)
        if audio:
            power = grid(100 * length + 1, MELS) + base
            np.save(folder / f"audio{half}.npy", np.ascontiguousarray(power.T))
    write_labels(folder, annotations)
    return folder


def grid(rows: int, columns: int) -> np.ndarray:
    """`row + column / 10`, float32."""
    return (np.arange(rows)[:, None] + np.arange(columns) / 10).astype(np.float32)


def write_labels(folder: Path, annotations: Iterable[dict[str, Any]]) -> None:
    """The label file of a match."""
    content = {"UrlLocal": folder.name, "annotations": list(annotations)}
    (folder / "Labels-v2.json").write_text(json.dumps(content), encoding="utf-8")


def data_config(root: Path | str | None, **changes: Any) -> dict[str, Any]:
    """`config.data` for such matches."""
    return {
        "root": None if root is None else str(root),
        "labels_root": None,
        "features_root": None,
        "audio_root": None,
        "classes": CLASSES,
        "unknown_labels": "error",
        "labels_file": "Labels-v2.json",
        "sources": (
            {"pattern": WIDE, "rows_per_second": 1, "widths": (4, 2)},
            {"pattern": FAST, "rows_per_second": 2, "widths": (3,)},
        ),
        "audio": {
            "pattern": "audio{half}.npy",
            "frames_per_second": 100,
            "mels": MELS,
            "floor_db": -80.0,
        },
        "workers": 0,
    } | changes


def stream_config(
    workers: int = 0,
    mixup: dict[str, Any] | None = None,
    clip: dict[str, Any] | None = None,
    num_classes: int = len(CLASSES),
    **changes: Any,
) -> StreamConfig:
    """What a training stream reads; `mixup` and `clip` change these sections' values."""
    cut = ClipConfig(**{"seconds": 50.0, "positions_per_second": 2.0} | (clip or {}))
    targets = {"class_radius_seconds": 2, "displacement_radius_seconds": 3}
    return StreamConfig(
        **{
            "seed": 3,
            "batch_size": 8,
            "workers": workers,
            "clip": cut,
            "targets": TargetSpec.from_config(targets, cut, num_classes),
            "mixup": MixupConfig(**{"kind": "balanced", "alpha": 1.0, "beta": 0.6} | (mixup or {})),
        }
        | changes
    )


def index(root: Path, *matches: str, labelled: bool = True, **data: Any) -> list[Half]:
    """The halves of such matches."""
    spec = DataSpec.from_config(data_config(root, **data))
    return index_halves(spec, matches or (MATCH,), labelled)
