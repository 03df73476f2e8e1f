"""Whatever a results folder or zip holds: it is read as it stands, or refused in one line."""

import json
import math
import tempfile
import zipfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from helpers.examples import (
    EVERY_CHARACTER,
    FILES,
    accepted,
    as_json,
    damaged,
    for_any,
)
from helpers.made_up import CLASSES, SPOTS
from hypothesis import example
from hypothesis import strategies as st

from astra_jax.data.time import exact_rate, indices_at, millisecond_of
from astra_jax.errors import UserError
from astra_jax.evaluation.metrics import average_maps
from astra_jax.formats.soccernet_results import (
    FILE_NAME,
    parse_prediction,
    read_predictions,
    write_results,
)
from astra_jax.spotting.matches import spots_to_predictions
from astra_jax.spotting.suppression import Spots

MATCH = "league/season/Málaga 1 - 0 Ibiza"
LABELS = [
    {"gameTime": "1 - 00:10", "label": "Goal", "position": "10000"},
    {"gameTime": "2 - 01:00", "label": "Foul", "position": "60000"},
]

contents = as_json(st.fixed_dictionaries({"predictions": SPOTS}, optional={"UrlLocal": st.text()}))


def by_hand(spot: Any) -> tuple[int, int, Any, float] | None:
    """Half, milliseconds, label, confidence: another reading; None where the spot is none."""
    if not isinstance(spot, dict) or not {"label", "position", "half", "confidence"} <= set(spot):
        return None
    found = []
    for key, kind in (("half", int), ("position", int), ("confidence", float)):
        value = spot[key]
        if key == "confidence" and value is None:
            value = math.nan
        try:
            found.append(kind(value))
        except (TypeError, ValueError, OverflowError):
            return None
    half, position, confidence = found
    return half, position, spot["label"], confidence


def check_spots(predictions: list[Any]) -> None:
    """They are read as by hand, and the score is one or one line."""
    for spot in predictions:
        # repr: NaN is no NaN.
        assert repr(tuple(parse_prediction(spot))) == repr(by_hand(spot))
    blocks = accepted(
        average_maps, {MATCH: LABELS}, {MATCH: predictions}, ("tight", "at1"), CLASSES, 25
    )
    if blocks is not None:
        assert all(0 <= block["a_mAP"] <= 1 for block in blocks.values())


@for_any(FILES | contents | damaged(contents))
@example(b'{"predictions": ' + b"[" * 100_000)
def test_any_results_file_is_read_as_it_stands_or_refused_in_one_line(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "results"
        (folder / MATCH).mkdir(parents=True)
        (folder / MATCH / FILE_NAME).write_bytes(data)
        packed = Path(name) / "results.zip"
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr(f"{MATCH}/{FILE_NAME}", data)
        found = accepted(read_predictions, folder, [MATCH])
        assert repr(accepted(read_predictions, packed, [MATCH])) == repr(found)
    if found is not None:
        content = json.loads(data.decode("utf-8-sig"))["predictions"]
        assert repr(found) == repr({MATCH: content})
        check_spots(content)


@for_any(SPOTS.map(lambda found: [spot for spot in found if isinstance(spot, dict)]))
@example([{"label": "\ud800", "position": 1, "half": 1, "confidence": 1}])
def test_any_spot_is_read_as_by_hand_or_refused(predictions: list[Any]) -> None:
    right = [by_hand(spot) for spot in predictions]
    with tempfile.TemporaryDirectory() as name:
        write_results(Path(name), {MATCH: predictions})
        for source in ("results", "results.zip"):
            found = accepted(read_predictions, Path(name) / source, [MATCH])
            assert (found is None) == (None in right)
            if found is not None:
                # What JSON makes of it: 1e400 is infinity, two half characters are a whole one.
                assert repr(found[MATCH]) == repr(json.loads(json.dumps(predictions)))
    if None not in right:
        check_spots(predictions)


names = st.lists(
    st.text(EVERY_CHARACTER, min_size=1, max_size=5).filter(lambda part: part not in (".", "..")),
    min_size=1,
    max_size=3,
).map("/".join)


@for_any(st.lists(names, max_size=3) | st.lists(st.text(EVERY_CHARACTER), max_size=2))
@example(["a", "a/results_spotting.json"])
@example(["a/b", "a//b"])
@example(["e\u0301", "\u00e9"])
@example(["\0"])
@example(["\ud800"])
@example(["a\nb"])
@example(["a" * 300])
def test_results_of_any_match_are_written_whole_and_read_back_or_refused(
    matches: list[str],
) -> None:
    spot = {"label": "Goal", "position": "1", "half": "1", "confidence": "0.5"}
    predictions = {match: [spot | {"position": str(k)}] for k, match in enumerate(matches)}
    with tempfile.TemporaryDirectory() as name:
        out = Path(name) / "out"
        try:
            write_results(out, predictions)
        except UserError as error:
            assert len(str(error).splitlines()) == 1
            assert not out.exists() or not list(out.iterdir())
            return
        for source in ("results", "results.zip"):
            assert read_predictions(out / source, list(predictions)) == predictions


rates = st.one_of(
    st.floats(0.2, 60),
    st.decimals("0.2", "60", places=3).map(float),
    st.sampled_from([1, 2, 25, 1000, 1.998, 23.976, 29.97, 59.94, 30000 / 1001 / 15, 1 / 3]),
    st.sampled_from(["30000/1001", "24000/1001", "25/12", "1/3"]).map(exact_rate),
)


@for_any(
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 400_000), st.floats(0, 1, width=32))),
    rates,
    st.integers(1, 9),
)
def test_spots_that_are_written_and_read_are_at_the_same_positions(
    rows: list[tuple[int, int, float]], rate: float | Fraction, half: int
) -> None:
    class_ids, positions, scores = zip(*rows, strict=True) if rows else ((), (), ())
    found = Spots(np.array(class_ids, int), np.array(positions, int), np.array(scores, np.float32))
    predictions = {MATCH: spots_to_predictions(found, half, CLASSES, rate)}
    with tempfile.TemporaryDirectory() as name:
        write_results(Path(name), predictions)
        read = read_predictions(Path(name) / "results.zip", [MATCH])
        assert read == read_predictions(Path(name) / "results", [MATCH]) == predictions
    parsed = [parse_prediction(spot) for spot in read[MATCH]]
    assert [of.half for of in parsed] == [half] * len(rows)
    assert [of.label for of in parsed] == [CLASSES[action] for action in class_ids]
    assert [np.float32(of.confidence) for of in parsed] == list(scores)
    times = np.array([of.milliseconds for of in parsed], int)
    np.testing.assert_array_equal(indices_at(times, rate), positions)
    assert times.tolist() == [millisecond_of(position, rate) for position in positions]
