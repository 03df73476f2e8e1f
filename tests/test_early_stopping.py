"""Which epoch of a run is the best one, and when a run stops."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from helpers.runs import LINEAR, lines, refused, steps_in, with_scores
from helpers.tiny import TRAIN, tiny_config, write_data

from astra_jax import runs
from astra_jax.training.checkpoints import Checkpoints


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


def scored_run(root: Path, workdir: Path, scores: Sequence[float], **training: int) -> dict:
    """A run of at most six epochs whose validations give these scores, in order."""
    config = tiny_config(root)
    config.training.update(epochs=6, **training)
    return runs.train(config, workdir, components=with_scores(scores))


def test_training_stops_when_patience_ends(root, tmp_path):
    scores = [0.3, 0.2, 0.1]
    summary = scored_run(root, tmp_path, scores, patience_epochs=2)
    assert (summary["epochs"], summary["best_epoch"]) == (3, 1)
    assert summary["best_validation_tight"] == 0.3
    assert steps_in(tmp_path / "checkpoints" / "best") == [3]
    # Stopped is finished: no step is taken when it is called again.
    assert scored_run(root, tmp_path, [], patience_epochs=2) == summary


def test_an_equal_score_counts_as_better(root, tmp_path):
    scores = [0.3, 0.3, 0.1, 0.2]
    summary = scored_run(root, tmp_path, scores, patience_epochs=2)
    assert (summary["epochs"], summary["best_epoch"]) == (4, 2)
    assert steps_in(tmp_path / "checkpoints" / "best") == [6]


def test_validation_is_every_so_many_epochs_and_at_the_end(root, tmp_path):
    summary = scored_run(root, tmp_path, [0.2, 0.1], validate_every_epochs=4)
    scores = [line["validation"].get("score") for line in lines(tmp_path / "metrics.jsonl")]
    assert scores == [None, None, None, 0.2, None, 0.1] and summary["best_epoch"] == 4


def test_without_a_validation_split_the_last_epoch_is_kept(root, tmp_path):
    config = tiny_config(root)
    config.data.splits.valid = ""
    summary = runs.train(config, tmp_path, components=LINEAR)
    assert (summary["best_epoch"], summary["best_validation_tight"]) == (3, None)
    assert steps_in(tmp_path / "checkpoints" / "best") == [9]
    assert all(line["validation"] == {} for line in lines(tmp_path / "metrics.jsonl"))
    assert (
        runs.evaluate(tmp_path, "test", tmp_path / "out", components=LINEAR)["loose"]["a_mAP"] >= 0
    )


def test_a_best_checkpoint_of_steps_that_are_taken_again_is_replaced(tmp_path):
    """Orbax takes no step below its newest: a run that goes on from step 3 would keep step 6."""
    latest, best = tmp_path / "latest", tmp_path / "best"
    checkpoints = Checkpoints(latest, best)
    checkpoints.save_best(6, {"w": np.zeros(2, np.float32)})
    checkpoints.close()
    checkpoints = Checkpoints(latest, best)
    checkpoints.save_best(5, {"w": np.ones(2, np.float32)})
    checkpoints.close()
    again = Checkpoints(latest, best, read_only=True)
    step, params = again.restore_best({"w": np.zeros(2, np.float32)})
    again.close()
    assert step == 5 and params["w"].tolist() == [1, 1]


def test_features_too_large_for_a_finite_loss_stop_the_run(tmp_path):
    write_data(tmp_path / "data")
    path = tmp_path / "data" / TRAIN / "1_wide.npy"
    np.save(path, np.load(path) * np.float32(1e30))
    config = tiny_config(tmp_path / "data")
    with config.ignore_type():
        config.data.sources = tuple({**s, "normalize": False} for s in config.data.sources)
    with refused("3 steps in a row", "optimizer.learning_rate", f"{TRAIN} half 1 at "):
        runs.train(config, tmp_path / "run", components=LINEAR)
    assert steps_in(tmp_path / "run" / "checkpoints" / "latest") == []
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
