"""Whatever stands in a label file: it is read as it says, or refused in one line."""

import json
import re
import tempfile
from pathlib import Path
from typing import Any

from helpers.examples import FILES, accepted, as_json, damaged, for_any
from helpers.made_up import CLASSES, LABELS, LATEST_MS
from hypothesis import example
from hypothesis import strategies as st

from astra_jax.data.annotations import Events, read_annotations
from astra_jax.evaluation.metrics import average_maps
from astra_jax.formats.soccernet_labels import parse_annotation, read_raw_annotations


def by_hand(entry: dict[str, Any]) -> tuple[int, int, str, bool] | None:
    """Half, milliseconds, label, shown: another reading; None where the entry is none."""
    if not {"gameTime", "label"} <= entry.keys() or not isinstance(entry["label"], str):
        return None
    half, dash, clock = str(entry["gameTime"]).partition("-")
    if not re.fullmatch("[1-9]", half.rstrip()) or not dash:
        return None
    if not re.fullmatch("[0-9]{1,3}:[0-9][0-9]", clock.lstrip()):
        return None
    minutes, rest = clock.split(":")
    position = entry.get("position", 1000 * (60 * int(minutes) + int(rest)))
    if isinstance(position, bool | list | dict | None):
        return None
    try:
        time = int(position)
    except (ValueError, OverflowError):
        return None
    if time != position and not isinstance(position, str) or not 0 <= time <= LATEST_MS:
        return None
    return int(half), time, entry["label"], entry.get("visibility") != "not shown"


def as_lists(events: dict[int, Events]) -> dict[int, list[tuple[int, int, bool]]]:
    return {
        half: list(
            zip(of.milliseconds.tolist(), of.class_ids.tolist(), of.visible.tolist(), strict=True)
        )
        for half, of in events.items()
    }


def check_reading(path: Path, content: list[dict[str, Any]], periods: tuple[int, ...]) -> None:
    """The file is read as by hand, gives the same when written anew, and can be scored."""
    right = [by_hand(entry) for entry in content]
    raw = accepted(read_raw_annotations, path)
    assert (raw is None) == (None in right)
    events = accepted(read_annotations, path, CLASSES, "skip", periods)
    assert (events is None) == (raw is None)
    whole = accepted(read_annotations, path, CLASSES, "error", periods)
    if raw is None:
        return
    read = [parse_annotation(entry) for entry in raw]
    assert [tuple(entry) for entry in read] == right
    unknown = any(of.label not in CLASSES for of in read if of.half in periods)
    assert (whole is None) == unknown
    for period in periods:
        assert as_lists(events)[period] == sorted(
            (
                (of.milliseconds, CLASSES.index(of.label), of.shown)
                for of in read
                if of.half == period and of.label in CLASSES
            ),
            key=lambda row: row[0],
        )
    anew = [
        {
            "gameTime": f"{of.half} - {min(of.milliseconds // 60_000, 999):02}:00",
            "label": of.label,
            "position": str(of.milliseconds),
            "visibility": "visible" if of.shown else "not shown",
        }
        for of in read
    ]
    path.write_text(json.dumps({"annotations": anew}))
    assert as_lists(read_annotations(path, CLASSES, "skip", periods)) == as_lists(events)
    assert average_maps({"match": raw}, {"match": []}, ("at1",), CLASSES, 2, periods)


@for_any(FILES | damaged(as_json(st.fixed_dictionaries({"annotations": LABELS}))))
@example(b'{"annotations": NaN}')
@example(b'{"annotations": [], "annotations": 1}')
@example(b'{"annotations": ' + b"[" * 100_000)
@example(b'{"annotations": [' + b"9" * 5000 + b"]}")
def test_any_file_of_labels_is_read_or_refused_in_one_line(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "Labels-v2.json"
        path.write_bytes(data)
        raw = accepted(read_raw_annotations, path)
        if raw is not None:
            assert raw == json.loads(data.decode("utf-8-sig"))["annotations"]
            check_reading(path, raw, (1, 2))


@for_any(LABELS, st.sampled_from([(1, 2), (1,), (2, 1, 3), tuple(range(1, 10))]))
@example([{"gameTime": "1 - 00:15", "label": "Goal", "position": -(10**4000)}], (1, 2))
@example([{"gameTime": "1 - 00:15", "label": "Goal", "position": -1e308}], (1, 2))
@example([{"gameTime": "1 - 00:15", "label": "x" * 5000}], (1, 2))
def test_any_annotation_is_read_as_by_hand_or_refused(
    content: list[dict[str, Any]], periods: tuple[int, ...]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "Labels-v2.json"
        path.write_text(json.dumps({"UrlLocal": "a/b/c", "annotations": content}))
        check_reading(path, content, periods)
