"""Label files to the events of halves, and what is wrong with them."""

import logging

import pytest
from helpers.errors import check_line
from helpers.matches import annotation, write_labels

from astra_jax.config.classes import CLASSES
from astra_jax.data.annotations import read_annotations
from astra_jax.errors import UserError
from astra_jax.formats.soccernet_labels import read_raw_annotations


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
        ({"gameTime": "3 - 00:10"}, ("half", "1 or 2")),
        ({"gameTime": ""}, ("half", "1 or 2")),
        ({"gameTime": 1}, ("half", "1 or 2")),
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


@pytest.mark.parametrize("key", ["gameTime", "label", "position"])
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
