"""The recipe for little data, trained at a size for tests."""

import json

import numpy as np
import pytest
from helpers.components import SHARED, on_one_device
from helpers.matches import FAST, WIDE
from helpers.tiny import TRAIN, VALID, write_data
from ml_collections import ConfigDict

from astra_jax import runs
from astra_jax.config.check import check
from astra_jax.config.clock import clock_source
from astra_jax.config.recipes import small_data


@pytest.fixture
def config(tmp_path):
    """`small_data` on two sources of one's own; the bump at each event is a shortcut column."""
    config = small_data()
    with config.ignore_type():
        config.data.sources = (
            {"pattern": WIDE, "rows_per_second": 1.0, "widths": (4, 2), "shortcut_columns": 1},
            {"pattern": FAST, "rows_per_second": 2.0, "widths": (3,), "shortcut_columns": 0},
            clock_source(),
        )
        config.data.audio = None
        config.data.splits = ConfigDict({"train": "train.txt", "valid": "valid.txt"})
    config.data.root = str(write_data(tmp_path / "data", (TRAIN, VALID)))
    config.clip.update(seconds=20.0, stride_seconds=4.0)
    config.model.update(
        dim=16, heads=2, feed_forward=16, encoder_layers=1, decoder_layers=1, shortcut_seconds=4.0
    )
    config.optimizer.learning_rate = 1e-2
    config.training.update(batch_size=8, epochs=4, validate_every_epochs=4)
    return config


def test_the_recipe_for_little_data_trains_and_predicts(config, tmp_path):
    check(config)
    components = on_one_device(SHARED)
    runs.train(config, tmp_path / "run", components=components)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    losses = [json.loads(line)["classification_loss"] for line in lines]
    assert len(losses) == 4 and losses[-1] < 0.9 * losses[0]
    blocks = runs.evaluate(tmp_path / "run", "valid", tmp_path / "out", components=components)
    assert np.isfinite(blocks["loose"]["a_mAP"])
    # The clock is no file to normalise.
    norms = json.loads((tmp_path / "run" / "normalization.json").read_text())
    assert [norm is None for norm in norms] == [False, False, True]


def test_the_paper_s_embeddings_come_without_a_shortcut_but_for_the_clock():
    baidu, half_clock = small_data().data.sources
    assert baidu["shortcut_columns"] == 0 and "normalize" not in baidu
    assert half_clock == clock_source()
