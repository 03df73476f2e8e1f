"""A run small enough for tests: a config file, and the matches it reads."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from helpers.matches import FAST, WIDE, annotation, write_match
from ml_collections import ConfigDict

from astra_jax.config.classes import CLASSES
from astra_jax.config.defaults import paper

TRAIN, VALID = "league/season/A - B", "league/season/C - D"
SECONDS = 120


def get_config() -> ConfigDict:
    """Two sources at two rates, no audio, only the order of clips random; 3 steps an epoch."""
    config = paper()
    with config.ignore_type():
        config.data.update(
            sources=(
                {"pattern": WIDE, "rows_per_second": 1.0, "widths": (4, 2)},
                {"pattern": FAST, "rows_per_second": 2.0, "widths": (3,)},
            )
        )
        config.data.audio = None
        config.data.splits = ConfigDict(
            {"train": "train.txt", "valid": "valid.txt", "test": "valid.txt"}
        )
    config.clip.update(seconds=20, stride_seconds=5)
    config.mixup.kind = "none"
    config.model.update(
        dim=16,
        heads=2,
        feed_forward=16,
        encoder_layers=2,
        decoder_layers=1,
        dropout=0.0,
        embedding_dropout=0.0,
        head_dropout=0.0,
        temporal_dropout=0.0,
        temporal_switch=0.0,
    )
    config.optimizer.update(learning_rate=1e-2, warmup_epochs=1)
    config.training.update(batch_size=8, epochs=3, checkpoint_every_steps=0)
    return config


def write_data(root: Path, matches: Sequence[str] = (TRAIN, VALID)) -> Path:
    """Matches with an event every 9 s, a bump in the features at each; the lists of the config."""
    for number, match in enumerate(matches):
        rng = np.random.default_rng(number)
        times = {half: np.arange(3 + half + number, SECONDS, 9) for half in (1, 2)}
        rows = [
            annotation(half, 1000 * int(t), CLASSES[index % 17])
            for half, of_half in times.items()
            for index, t in enumerate(of_half)
        ]
        folder = write_match(root, match, (SECONDS, SECONDS), rows, audio=False)
        for half, of_half in times.items():
            wide = rng.normal(size=(SECONDS, 6)).astype(np.float32)
            wide[of_half, 0] += 5
            np.save(folder / WIDE.format(half=half), wide)
            fast = rng.normal(size=(2 * SECONDS, 3)).astype(np.float32)
            np.save(folder / FAST.format(half=half), fast)
    (root / "train.txt").write_text(f"{matches[0]}\n")
    (root / "valid.txt").write_text(f"{matches[-1]}\n")
    return root


def tiny_config(root: Path) -> ConfigDict:
    """The config, its root set."""
    config = get_config()
    config.data.root = str(root)
    return config
