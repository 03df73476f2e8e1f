"""Whatever stands in a label file: it is read as it says, or refused in one line."""

import json
import re
import tempfile
from pathlib import Path
from typing import Any

from helpers.examples import FILES, JSON_VALUES, accepted, as_json, damaged, for_any
from hypothesis import example
from hypothesis import strategies as st

from astra_jax.data.annotations import Events, read_annotations
from astra_jax.evaluation.metrics import average_maps
from astra_jax.formats.soccernet_labels import parse_annotation, read_raw_annotations

CLASSES = ("Goal", "Foul")
LATEST = 10**9

seconds = st.integers(0, 99).map("{:02}".format)
clocks = st.builds(
    "{}{}-{}{}:{}".format,
    st.integers(1, 9),
    st.sampled_from(["", " ", "  ", "\t"]),
    st.sampled_from(["", " ", "\u00a0"]),
    st.integers(0, 999) | seconds,
    seconds,
)
wild_clocks = st.sampled_from(
    [
        *("", "12:15", "10 - 00:15", "0 - 00:15", "1 - 00:15 ", "1 - 00:15\n", "1 – 00:15"),
        *("1 - 1000:00", "1 - 00:5", "1 - 00:005", "１ - 00:15", "1 - ٠٠:15", "1 - -1:00", "1-:1"),
    ]
)
near = st.integers(0, 6_000_000)
times = near | st.sampled_from([0, LATEST, 10_000])
positions = st.one_of(
    times,
    times.map(float),
    times.map(str),
    times.map(" {}\n".format),
    times.map("+{}".format),
    times.map("{:_}".format),
    times.map(lambda time: str(time).translate({48 + digit: 0x660 + digit for digit in range(10)})),
)
wild_positions = st.one_of(
    JSON_VALUES,
    st.integers(-10, -1),
    st.integers(-10, -1).map(str),
    times.map("{}.0".format),
    st.floats(),
    st.sampled_from([LATEST + 1, 1e10, 10**4000, -(10**4000), "-" + "9" * 4000, "9" * 5000, "1e3"]),
)
visibilities = st.sampled_from(["visible", "not shown", None, "Not shown"]) | JSON_VALUES
good = st.fixed_dictionaries(
    {"gameTime": clocks, "label": st.sampled_from(CLASSES)},
    optional={"position": positions, "visibility": visibilities, "team": JSON_VALUES},
)
odd = st.fixed_dictionaries(
    {},
    optional={
        "gameTime": clocks | wild_clocks | JSON_VALUES,
        "label": st.sampled_from(CLASSES) | JSON_VALUES,
        "position": positions | wild_positions,
        "visibility": visibilities,
    },
)
entries = st.lists(good, max_size=5) | st.lists(good | odd, max_size=3) | odd.map(lambda one: [one])


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
    if time != position and not isinstance(position, str) or not 0 <= time <= LATEST:
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


@for_any(FILES | damaged(as_json(st.fixed_dictionaries({"annotations": entries}))))
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


@for_any(entries, st.sampled_from([(1, 2), (1,), (2, 1, 3), tuple(range(1, 10))]))
@example([{"gameTime": "1 - 00:15", "label": "Goal", "position": -(10**4000)}], (1, 2))
@example([{"gameTime": "1 - 00:15", "label": "Goal", "position": -1e308}], (1, 2))
def test_any_annotation_is_read_as_by_hand_or_refused(
    content: list[dict[str, Any]], periods: tuple[int, ...]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "Labels-v2.json"
        path.write_text(json.dumps({"UrlLocal": "a/b/c", "annotations": content}))
        check_reading(path, content, periods)
