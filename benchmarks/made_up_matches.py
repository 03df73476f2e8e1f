"""Matches of random values in SoccerNet's layout, and the settings of configs that read them."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from astra_jax.config.load import load_config
from astra_jax.data.layout import audio_path, label_path, source_path
from astra_jax.data.sources import DataSpec
from astra_jax.data.time import steps_of
from astra_jax.runs.folder import RunFolder
from astra_jax.runs.settings import Settings, resolve

EVENTS_A_HALF = 100


def settings_of(config: str, root: Path = Path("matches"), **keys: Any) -> Settings:
    """Those of a config file, `PATH` or `PATH:ARGUMENT`, on matches below `root`; none is read.

    `keys`: further values of the config, by their names.
    """
    overrides = [f"--config.{key}={value}" for key, value in {"data.root": root, **keys}.items()]
    return Settings.from_config(resolve(load_config(config, overrides), RunFolder(root / "run")))


def write_matches(spec: DataSpec, matches: int, half_seconds: int) -> list[str]:
    """So many matches, features in half precision, below the roots of `spec`; their names."""
    rng = np.random.default_rng(0)
    names = [f"league/season/match {number}" for number in range(matches)]
    for name in names:
        label_path(spec, name).parent.mkdir(parents=True)
        label_path(spec, name).write_text(
            json.dumps({"annotations": _annotations(spec, half_seconds, rng)})
        )
        for half in spec.periods:
            for source in spec.sources:
                rows = steps_of(half_seconds, source.rows_per_second)
                values = rng.standard_normal((rows, source.width), np.float32)
                np.save(source_path(spec, source, name, half), values.astype(np.float16))
            if spec.audio is not None:
                frames = (spec.audio.mels, half_seconds * spec.audio.frames_per_second)
                np.save(audio_path(spec, spec.audio, name, half), rng.random(frames, np.float32))
    return names


def _annotations(
    spec: DataSpec, half_seconds: int, rng: np.random.Generator
) -> list[dict[str, str]]:
    return [
        {
            "gameTime": f"{half} - {ms // 60_000:02d}:{ms // 1000 % 60:02d}",
            "label": spec.classes[action],
            "position": str(ms),
            "team": "home",
            "visibility": "visible",
        }
        for half in spec.periods
        for ms, action in zip(
            rng.integers(1000 * half_seconds, size=EVENTS_A_HALF).tolist(),
            rng.integers(len(spec.classes), size=EVENTS_A_HALF).tolist(),
            strict=True,
        )
    ]
