"""The spots of a half as SoccerNet's dictionaries; of matches, by one process or several."""

from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from astra_jax.data.halves import Half
from astra_jax.spotting import matches
from astra_jax.spotting.inference import Predictor
from astra_jax.spotting.matches import predict_matches, spots_to_predictions
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


class Named(Half):
    """As much of a half as decides whose turn it is."""

    def __init__(self, match: str, half: int) -> None:
        self.__dict__.update(match=match, half=half)


class ByNumber(Predictor):
    """Two spots in every half, which its match and number name."""

    def __init__(self) -> None:
        self.__dict__.update(config=SimpleNamespace(positions_per_second=2.0))

    def all_spots(self, halves: Sequence[Half], *args: Any) -> Iterator[Spots]:
        for half in halves:
            first = 100 * int(half.match) + 10 * half.half
            yield Spots(np.array([0, 0]), np.array([first, first + 1]), np.array([0.5, 0.25]))


def predicted_by(processes: int, halves: list[Half], monkeypatch: pytest.MonkeyPatch) -> Any:
    """What each of so many processes, which are run one after the other, says of all halves."""
    parts: list[Any] = []

    def run(index: int, gather: Any) -> Any:
        monkeypatch.setattr(matches.jax, "process_index", lambda: index)
        monkeypatch.setattr(matches.jax, "process_count", lambda: processes)
        monkeypatch.setattr(matches, "_gather", gather)
        return predict_matches(ByNumber(), halves, ("Goal",))

    class GatheredError(Exception):
        pass

    def keep(part: Any) -> Any:
        parts.append(part)
        raise GatheredError

    for index in range(processes):
        with pytest.raises(GatheredError):
            run(index, keep)
    said = [run(index, lambda part: parts) for index in range(processes)]
    assert all(predictions == said[0] for predictions in said)
    return said[0]


@pytest.mark.parametrize("processes", [1, 2, 3, 4, 5, 12])
def test_the_spots_of_a_match_come_half_after_half_whichever_process_had_which(
    processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Matches of two halves, of one, of four; with 12 some processes have none."""
    numbers = {"1": (1, 2), "2": (1, 2), "3": (2,), "4": (1, 2, 3, 4), "5": (1, 2)}
    halves: list[Half] = [Named(match, number) for match, of in numbers.items() for number in of]
    found = predicted_by(processes, halves, monkeypatch)
    assert list(found) == list(numbers)
    for match, of_match in numbers.items():
        assert [spot["half"] for spot in found[match]] == [str(n) for n in of_match for _ in "ab"]
        positions = [100 * int(match) + 10 * n + more for n in of_match for more in (0, 1)]
        assert [spot["position"] for spot in found[match]] == [str(500 * p) for p in positions]
