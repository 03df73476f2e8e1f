"""Label files to the events of halves, and what is wrong with them."""

import logging
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from helpers.errors import check_line
from helpers.matches import annotation, write_labels

from astra_jax.config.classes import CLASSES
from astra_jax.data.annotations import read_annotations
from astra_jax.errors import UserError
from astra_jax.formats.soccernet_labels import parse_annotation, read_raw_annotations


def test_annotations_are_read_per_half_in_order_of_time(tmp_path):
    rows = [
        annotation(2, 9000, "Corner"),
        annotation(1, 30500, "Foul", visibility="not shown"),
        annotation(1, 20, "Kick-off") | {"position": 20},
    ]
    del rows[2]["visibility"]
    write_labels(tmp_path, rows)
    events = read_annotations(tmp_path / "Labels-v2.json", CLASSES)
    assert events[1].milliseconds.tolist() == [20, 30500]
    assert events[1].class_ids.tolist() == [1, 10]
    assert events[1].visible.tolist() == [True, False]
    assert events[2].class_ids.tolist() == [13] and len(events[2]) == 1


def test_unknown_labels_are_an_error_or_skipped_with_a_line_in_the_log(tmp_path, caplog):
    write_labels(tmp_path, [annotation(1, 0, "Goal"), annotation(1, 5, "Handball")])
    path = tmp_path / "Labels-v2.json"
    with pytest.raises(UserError) as error:
        read_annotations(path, CLASSES)
    check_line(error, str(path), "annotation 2", "'Handball'", "data.unknown_labels")
    with caplog.at_level(logging.WARNING):
        assert len(read_annotations(path, CLASSES, "skip")[1]) == 1
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}: 1 annotation(s) with unknown labels skipped"
    ]
    assert len(read_raw_annotations(path)) == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        *(
            ({"gameTime": time}, ("gameTime", repr(time), "half (a digit from 1 to 9)"))
            for time in ("12:15", "20:15", "05:15", "10 - 00:15", "0 - 00:15", "1 - 0015", "", 1)
        ),
        ({"position": True}, ("position", "True")),
        ({"position": float("inf")}, ("position", "inf")),
        ({"position": "15000.0"}, ("position", "'15000.0'")),
        ({"position": "-20"}, ("negative", "-20")),
        ({"position": "soon"}, ("position", "'soon'")),
        ({"position": 1.5}, ("position", "1.5")),
        ({"position": None}, ("position", "None")),
        ({"position": 10**30}, ("position", "1000", "later than any half")),
        ({"position": "9" * 5000}, ("position", "99...99", "whole milliseconds")),
        ({"label": 3}, ("label", "3")),
    ],
)
def test_a_bad_annotation_is_an_error_that_names_file_and_entry(tmp_path, change, words):
    write_labels(tmp_path, [annotation(1, 0), annotation(1, 10) | change])
    with pytest.raises(UserError) as error:
        read_annotations(tmp_path / "Labels-v2.json", CLASSES)
    check_line(error, "Labels-v2.json", "annotation 2", *words)


@pytest.mark.parametrize("key", ["gameTime", "label"])
def test_a_missing_key_is_an_error(tmp_path, key):
    entry = annotation(1, 0)
    del entry[key]
    write_labels(tmp_path, [entry])
    with pytest.raises(UserError) as error:
        read_annotations(tmp_path / "Labels-v2.json", CLASSES)
    check_line(error, "annotation 1", key)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"{", "line 1"),
        (b"[]", "annotations"),
        (b'{"annotations": [1]}', "annotation 1"),
        (b"\xff\xfe", "UTF-8"),
        (b"[" * 100_000, "recursion"),
        (b'{"annotations": ' + b"9" * 5000 + b"}", "4300 digits"),
    ],
)
def test_a_broken_label_file_is_an_error(tmp_path, content, word):
    path = tmp_path / "Labels-v2.json"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        read_annotations(path, CLASSES)
    check_line(error, str(path), word)


@pytest.mark.parametrize(
    ("game_time", "half", "milliseconds"),
    [
        ("1-00:15", 1, 15_000),
        ("3 - 02:10", 3, 130_000),
        ("1 - 45:00", 1, 2_700_000),
        ("9 -102:09", 9, 6_129_000),
        ("2 - 5:03", 2, 303_000),
    ],
)
def test_a_label_without_position_lies_at_its_game_time(game_time, half, milliseconds):
    assert parse_annotation({"gameTime": game_time, "label": "Goal"}) == (
        half,
        milliseconds,
        "Goal",
        True,
    )


@pytest.mark.parametrize("position", [15_000, 15_000.0, "15000", np.int64(15_000)])
def test_positions_may_be_numbers_or_text(position):
    entry = {"gameTime": "1 - 00:00", "label": "Goal", "position": position}
    assert parse_annotation(entry | {"visibility": "not shown"}) == (1, 15_000, "Goal", False)


def test_files_of_version_1_are_read(tmp_path):
    entry = annotation(2, 61_000)
    del entry["position"]
    write_labels(tmp_path, [entry])
    events = read_annotations(tmp_path / "Labels-v2.json", CLASSES)
    assert events[2].milliseconds.tolist() == [61_000]


def test_of_labels_of_other_periods_only_the_halves_are_told(tmp_path, caplog):
    write_labels(tmp_path, [annotation(half, 15_000) for half in (1, 2, 3, 3, 5)])
    path = tmp_path / "Labels-v2.json"
    others: list[int] = []
    events = read_annotations(path, CLASSES, others=others)
    assert {half: len(of) for half, of in events.items()} == {1: 1, 2: 1} and others == [3, 3, 5]
    of_three = read_annotations(path, CLASSES, periods=(3, 1))
    assert {half: len(of) for half, of in of_three.items()} == {3: 2, 1: 1}
    assert caplog.records == []  # the index says it once for all matches
    assert len(read_raw_annotations(path)) == 5


def test_an_unknown_label_of_a_period_that_does_not_count_is_no_error(tmp_path):
    write_labels(tmp_path, [annotation(1, 0), annotation(3, 0, "Penalty shoot-out")])
    assert len(read_annotations(tmp_path / "Labels-v2.json", CLASSES)[1]) == 1


def doubts(
    folder: Path,
    caplog: pytest.LogCaptureFixture,
    position: Callable[[float], float],
    times: list[float],
) -> list[str]:
    """What the log says of a file with events at these seconds, and positions made of them."""
    folder.mkdir()
    rows = [annotation(1, round(1000 * s)) | {"position": int(position(s))} for s in times]
    write_labels(folder, rows)
    caplog.clear()
    for _ in range(2):  # told once
        read = read_annotations(folder / "Labels-v2.json", CLASSES)
    assert read[1].milliseconds.tolist() == sorted(row["position"] for row in rows)
    return [record.getMessage().partition("position looks like ")[2] for record in caplog.records]


TIMES = [0.0, *(91.3 * k + 0.4 for k in range(30))]  # up to 44 minutes


@pytest.mark.parametrize(
    ("rate", "unit"),
    [
        (1, "seconds,"),
        (25, "frames of 25 a second,"),
        (12.5, "frames of 12.5 a second,"),
        (Fraction(30_000, 1001), "frames of 29.97 a second,"),
        (16, "frames of 16 a second,"),
        (100, "frames of 100 a second,"),
        (1_000_000 / 3600, "a count from elsewhere"),
    ],
)
def test_a_file_in_another_unit_is_told(tmp_path, caplog, rate, unit):
    (said,) = doubts(tmp_path / "labels", caplog, lambda second: second * rate, TIMES)
    assert said.startswith(unit) and "is read as milliseconds" in said


def test_a_file_that_counts_from_elsewhere_is_told(tmp_path, caplog):
    (said,) = doubts(tmp_path / "shifted", caplog, lambda second: 1000 * second + 300_000, TIMES)
    assert said.startswith("a count from elsewhere")
    # Every gameTime is 00:00, as where nobody filled them in.
    (said,) = doubts(tmp_path / "empty", caplog, lambda _: 60_000, [0.0, 0.0])
    assert said.startswith("a count from elsewhere")


def test_small_differences_and_single_slips_are_not_told(tmp_path, caplog):
    assert doubts(tmp_path / "a", caplog, lambda second: 1000 * second + 1_000, TIMES) == []
    slip = [1e6 if second < 300 else 1000 * second for second in TIMES]
    moved = dict(zip(TIMES, slip, strict=True))
    assert sum(at != 1000 * second for second, at in moved.items()) < len(TIMES) / 2
    assert doubts(tmp_path / "b", caplog, lambda second: moved[second], TIMES) == []
    assert doubts(tmp_path / "c", caplog, lambda second: second, [0.0, 0.0, 1.0]) == []
