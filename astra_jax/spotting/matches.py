"""The spots of whole matches, each process predicting its share of the halves."""

import json
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.experimental import multihost_utils

from astra_jax.data.halves import Half
from astra_jax.data.time import Exact, millisecond_of
from astra_jax.formats.soccernet_results import Prediction
from astra_jax.spotting.inference import Predictor
from astra_jax.spotting.suppression import Spots


def predict_matches(
    predictor: Predictor,
    halves: Sequence[Half],
    classes: Sequence[str],
    before_each: Callable[[], None] = lambda: None,
) -> dict[str, list[Prediction]]:
    """The spots of every match; with several processes each predicts its share of the halves.

    `before_each` is called before each half is computed; what it raises ends the prediction.
    """
    rate, processes = predictor.config.positions_per_second, jax.process_count()
    share = halves[jax.process_index() :: processes]
    own = [
        spots_to_predictions(spots, half.half, classes, rate)
        for half, spots in zip(share, predictor.all_spots(share, before_each), strict=True)
    ]
    parts = _gather(own)
    # In the order of the halves, whichever process had which.
    predictions: dict[str, list[Prediction]] = {}
    for index, half in enumerate(halves):
        turn, process = divmod(index, processes)
        predictions.setdefault(half.match, []).extend(parts[process][turn])
    return predictions


def _gather(part: list[list[Prediction]]) -> list[list[list[Prediction]]]:
    """Every process's part, in their order."""
    if jax.process_count() == 1:
        return [part]
    content = np.frombuffer(json.dumps(part).encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.array([len(content)]))
    padded = np.zeros(int(sizes.max()), np.uint8)
    padded[: len(content)] = content
    rows = multihost_utils.process_allgather(padded)
    return [
        json.loads(row[: int(size)].tobytes())
        for row, size in zip(rows, sizes.ravel(), strict=True)
    ]


def spots_to_predictions(
    spots: Spots, half: int, classes: Sequence[str], positions_per_second: Exact
) -> list[Prediction]:
    """The spots of one half as SoccerNet's dictionaries, in the given order.

    All values are strings; `position` is the first whole millisecond of the spot's position in the
    half, `gameTime` its minutes and whole seconds. `sigma_seconds` is there where the spots have
    one.
    """
    predictions = []
    for index, (action, position, score) in enumerate(
        zip(spots.class_ids, spots.positions, spots.scores, strict=True)
    ):
        milliseconds = millisecond_of(int(position), positions_per_second)
        minutes, seconds = divmod(milliseconds // 1000, 60)
        prediction = {
            "gameTime": f"{half} - {minutes}:{seconds:02d}",
            "label": classes[action],
            "position": str(milliseconds),
            "half": str(half),
            "confidence": str(float(score)),
        }
        if spots.sigma_seconds is not None:
            prediction["sigma_seconds"] = f"{float(spots.sigma_seconds[index]):.6g}"
        predictions.append(prediction)
    return predictions
