"""The spots of a half as SoccerNet's dictionaries."""

import numpy as np
import pytest

from astra_jax.spotting.matches import spots_to_predictions
from astra_jax.spotting.suppression import Spots


def spots(sigma: list[float] | None = None) -> Spots:
    return Spots(
        class_ids=np.array([1, 0]),
        positions=np.array([63, 5401]),
        scores=np.array([0.0066, 0.25]),
        sigma_seconds=None if sigma is None else np.array(sigma),
    )


def test_spots_become_soccernets_dictionaries_of_strings() -> None:
    assert spots_to_predictions(spots(), 2, ("Goal", "Corner"), 2.0) == [
        {
            "gameTime": "2 - 0:31",
            "label": "Corner",
            "position": "31500",
            "half": "2",
            "confidence": "0.0066",
        },
        {
            "gameTime": "2 - 45:00",
            "label": "Goal",
            "position": "2700500",
            "half": "2",
            "confidence": "0.25",
        },
    ]


def test_sigma_is_written_where_it_is_known() -> None:
    written = spots_to_predictions(spots([0.75, 1 / 3]), 1, ("Goal", "Corner"), 2.0)
    assert [prediction["sigma_seconds"] for prediction in written] == ["0.75", "0.333333"]


@pytest.mark.parametrize(("rate", "expected"), [(1.0, "7000"), (3.0, "2334"), (25.0, "280")])
def test_positions_of_any_rate_are_whole_milliseconds(rate: float, expected: str) -> None:
    one = Spots(np.array([0]), np.array([7]), np.array([0.5]))
    assert spots_to_predictions(one, 1, ("Goal",), rate)[0]["position"] == expected
