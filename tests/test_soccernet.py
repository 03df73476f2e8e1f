"""The SoccerNet layout: files to halves, ranges of files, bad input."""

import logging
import math
import os
from pathlib import Path

import numpy as np
import pytest
from helpers.matches import (
    FAST,
    MATCH,
    WIDE,
    annotation,
    data_config,
    grid,
    index,
    write_labels,
    write_match,
)

from astra_jax.config.classes import CLASSES
from astra_jax.data.annotations import read_annotations
from astra_jax.data.arrays import open_array
from astra_jax.data.index import index_halves
from astra_jax.data.sources import DataSpec
from astra_jax.data.splits import SPLITS, load_split
from astra_jax.errors import UserError
from astra_jax.formats.soccernet_labels import read_raw_annotations

COMMENTARY = Path(__file__).parents[2] / "shared" / "data" / "commentary"


def one_line(error: pytest.ExceptionInfo[UserError], *words: str) -> None:
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message


# Splits


def test_the_shipped_splits_are_soccernets_and_disjoint():
    lists = [load_split(name) for name in SPLITS]
    assert [len(matches) for matches in lists] == [300, 100, 100, 50]
    assert len(set().union(*lists)) == 550


def test_a_split_list_may_have_blank_lines_comments_and_windows_line_ends(tmp_path):
    path = tmp_path / "own.txt"
    path.write_bytes("\ufeff# mine\r\n\r\nleague/season/A - B\r\n  l/s/C \n".encode())
    assert load_split(str(path)) == ("league/season/A - B", "l/s/C")


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "no match"),
        ("a\\b\n", "line 1"),
        ("/a\n", "line 1"),
        ("x\n../a\n", "line 2"),
        ("a\na\n", "line 2"),
        ("a/b\na/./b/\n", "line 2 lists 'a/b' again"),
        ("a/b\na//b\n", "line 2 lists 'a/b' again"),
        (".\n", "line 1"),
        ("x\n" + "a" * 300, "line 2"),
    ],
)
def test_a_bad_split_list_is_an_error(tmp_path, text, word):
    path = tmp_path / "own.txt"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        load_split(str(path))
    one_line(error, str(path), word)


def test_an_unknown_split_names_the_shipped_ones():
    with pytest.raises(UserError) as error:
        load_split("trian")
    one_line(error, "trian", "train, valid, test, challenge", "data.splits")


def test_a_name_too_long_for_a_file_is_no_list(tmp_path):
    for root in (None, tmp_path):
        with pytest.raises(UserError, match="neither a shipped split"):
            load_split("a" * 300, root)


# Annotations


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
    assert events[1].classes.tolist() == [1, 10]
    assert events[1].visible.tolist() == [True, False]
    assert events[2].classes.tolist() == [13] and len(events[2]) == 1


def test_unknown_labels_are_an_error_or_skipped_with_a_line_in_the_log(tmp_path, caplog):
    write_labels(tmp_path, [annotation(1, 0, "Goal"), annotation(1, 5, "Handball")])
    path = tmp_path / "Labels-v2.json"
    with pytest.raises(UserError) as error:
        read_annotations(path, CLASSES)
    one_line(error, str(path), "annotation 2", "'Handball'", "data.unknown_labels")
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
    one_line(error, "Labels-v2.json", "annotation 2", *words)


@pytest.mark.parametrize("key", ["gameTime", "label", "position"])
def test_a_missing_key_is_an_error(tmp_path, key):
    entry = annotation(1, 0)
    del entry[key]
    write_labels(tmp_path, [entry])
    with pytest.raises(UserError) as error:
        read_annotations(tmp_path / "Labels-v2.json", CLASSES)
    one_line(error, "annotation 1", key)


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
    one_line(error, str(path), word)


# Ranges of files


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_range_of_rows_is_read_from_either_memory_order(tmp_path, dtype, order):
    values = np.asarray(grid(50, 7), dtype=dtype, order=order)
    np.save(tmp_path / "a.npy", values)
    read = open_array(tmp_path / "a.npy").read(11, 19)
    assert read.dtype == np.float32 and read.flags.c_contiguous
    np.testing.assert_array_equal(read, values[11:19].astype(np.float32))


@pytest.mark.parametrize("turned", [False, True])
def test_a_clip_reads_only_its_own_bytes(tmp_path, monkeypatch, turned):
    write_match(tmp_path)
    for half in (1, 2):
        path = tmp_path / MATCH / f"audio{half}.npy"
        if turned:
            np.save(path, np.ascontiguousarray(np.load(path).T))
    half = index(tmp_path)[0]
    sizes = []
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda *args: sizes.append(args[1]) or pread(*args))
    half.read_source(0, 20, 50)
    assert sizes == [50 * 6 * 4]
    sizes.clear()
    power, _ = half.read_mel_power(300, 200)
    assert sizes == ([200 * 4 * 4] if turned else 4 * [200 * 4])
    np.testing.assert_array_equal(power, (grid(12001, 4) + 1000)[300:500])


def test_a_read_that_comes_in_pieces_is_put_together(tmp_path, monkeypatch):
    np.save(tmp_path / "a.npy", grid(30, 5))
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda file, size, at: pread(file, min(size, 37), at))
    read = open_array(tmp_path / "a.npy").read(3, 27)
    np.testing.assert_array_equal(read, grid(30, 5)[3:27])


def test_a_damaged_array_is_an_error(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, grid(50, 7))
    whole = path.read_bytes()
    garbled = whole.replace(b"(50, 7)", b"(50, 7(")
    for content in (b"", b"text", whole[:60], whole[:-4], whole + b"x", garbled):
        path.write_bytes(content)
        with pytest.raises(UserError) as error:
            open_array(path)
        one_line(error, str(path))


@pytest.mark.parametrize(
    "values",
    [
        np.zeros(5, np.float32),
        np.zeros((2, 3, 4), np.float32),
        np.zeros((2, 3), int),
        np.array([[{}]]),
    ],
)
def test_an_array_of_another_kind_is_an_error(tmp_path, values):
    np.save(tmp_path / "a.npy", values, allow_pickle=True)
    with pytest.raises(UserError) as error:
        open_array(tmp_path / "a.npy")
    one_line(error, "a.npy")


def test_a_file_that_vanishes_or_shrinks_after_indexing_is_an_error(tmp_path):
    folder = write_match(tmp_path)
    half = index(tmp_path)[0]
    path = folder / WIDE.format(half=1)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError) as error:
        half.read_source(0, 0, 50)
    one_line(error, str(path), "changed")
    path.unlink()
    with pytest.raises(UserError) as error:
        half.read_source(0, 0, 50)
    one_line(error, str(path), "changed")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_an_error_when_their_clip_is_read(tmp_path, value):
    folder = write_match(tmp_path)
    path = folder / WIDE.format(half=1)
    values = np.load(path)
    values[[71, 73], 2] = value
    np.save(path, values)
    half = index(tmp_path)[0]
    half.read_source(0, 0, 50)
    with pytest.raises(UserError) as error:
        half.read_source(0, 50, 50)
    one_line(error, str(path), "2 row(s): 71, 73")


# Halves


def test_both_halves_of_a_match_are_indexed_alike(tmp_path):
    write_match(tmp_path, seconds=(120, 90), annotations=[annotation(1, 5), annotation(2, 7)])
    first, second = index(tmp_path)
    assert [(h.match, h.half, h.seconds) for h in (first, second)] == [
        (MATCH, 1, 120),
        (MATCH, 2, 90),
    ]
    assert first.events.milliseconds.tolist() == [5]
    assert second.events.milliseconds.tolist() == [7]
    assert second.read_source(0, 10, 1)[0][0, 0] == 2010


def test_labels_features_and_audio_may_lie_under_three_roots(tmp_path):
    folder = write_match(tmp_path / "features", annotations=[annotation(1, 5)])
    for kind, names in {
        "labels": ["Labels-v2.json"],
        "audio": ["audio1.npy", "audio2.npy"],
    }.items():
        (tmp_path / kind / MATCH).mkdir(parents=True)
        for name in names:
            (folder / name).rename(tmp_path / kind / MATCH / name)
    roots = {f"{kind}_root": str(tmp_path / kind) for kind in ("labels", "features", "audio")}
    spec = DataSpec.from_config(data_config(None, **roots))
    half = index_halves(spec, [MATCH])[0]
    assert half.audio is not None and len(half.events) == 1


def test_without_labels_no_label_file_is_needed(tmp_path):
    folder = write_match(tmp_path)
    (folder / "Labels-v2.json").unlink()
    assert [len(half.events) for half in index(tmp_path, labelled=False)] == [0, 0]
    with pytest.raises(UserError) as error:
        index(tmp_path)
    one_line(error, "Labels-v2.json", "no such label file")


def test_other_class_lists_are_followed(tmp_path):
    write_match(tmp_path, annotations=[annotation(1, 5, "PASS")])
    assert index(tmp_path, classes=("DRIVE", "PASS"))[0].events.classes.tolist() == [1]


def test_events_past_the_end_of_their_half_are_left_out_with_one_line_a_match(tmp_path, caplog):
    rows = [annotation(half, ms) for half in (1, 2) for ms in (0, 119_999, 120_000, 500_000)]
    write_match(tmp_path, annotations=rows)
    with caplog.at_level(logging.WARNING):
        halves = index(tmp_path)
    assert [half.events.milliseconds.tolist() for half in halves] == [[0, 119_999]] * 2
    assert len(caplog.records) == 1 and "4 event(s)" in caplog.text and MATCH in caplog.text


def test_the_last_row_repeats_past_the_end_of_the_half(tmp_path):
    write_match(tmp_path)
    half = index(tmp_path)[0]
    values, present = half.read_source(1, 230, 100)
    assert present.all()
    assert values[:, 0].tolist() == [1230 + min(i, 9) for i in range(100)]
    values, present = half.read_source(0, 130, 3)
    assert present.all() and values[:, 0].tolist() == [1119] * 3
    power, present = half.read_mel_power(11_990, 30)
    assert present.all()
    # The frame that begins as the half ends is cut.
    assert power[:, 0].tolist() == [12990 + min(i, 9) for i in range(30)]


def test_a_tail_of_up_to_five_seconds_repeats_and_more_is_masked(tmp_path, caplog):
    folder = write_match(tmp_path)
    np.save(folder / FAST.format(half=1), grid(230, 3))  # 5 s short of 120
    np.save(folder / FAST.format(half=2), grid(229, 3))  # 5.5 s short
    with caplog.at_level(logging.WARNING):
        first, second = index(tmp_path)
    assert (first.seconds, second.seconds) == (120, 120)
    values, present = first.read_source(1, 225, 15)
    assert present.all() and values[:, 0].tolist() == [225 + min(i, 4) for i in range(15)]
    values, present = second.read_source(1, 225, 15)
    assert present.tolist() == [True] * 4 + [False] * 11
    assert values[:, 0].tolist() == [225, 226, 227, 228] + [0] * 11
    assert not second.read_source(1, 235, 15)[1].any()
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        str(folder / FAST.format(half=2))
    ]


def test_an_absent_file_is_masked_and_named_once(tmp_path, caplog):
    folder = write_match(tmp_path)
    for name in ("1_wide.npy", "audio2.npy"):
        (folder / name).unlink()
    with caplog.at_level(logging.WARNING):
        first, second = index(tmp_path)
    assert first.sources[0] is None and second.audio is None and first.seconds == 120
    values, present = first.read_source(0, 0, 50)
    assert values.shape == (50, 6) and not values.any() and not present.any()
    power, present = second.read_mel_power(0, 100)
    assert power.shape == (100, 4) and not present.any()
    assert sorted(record.getMessage() for record in caplog.records) == [
        f"{folder / '1_wide.npy'}: absent, masked",
        f"{folder / 'audio2.npy'}: absent, masked",
    ]


def test_almost_empty_audio_is_masked_past_its_frames(tmp_path):
    folder = write_match(tmp_path)
    np.save(folder / "audio1.npy", np.ones((4, 3), np.float32))
    np.save(folder / "audio2.npy", np.ones((4, 0), np.float32))
    first, second = index(tmp_path)
    assert first.read_mel_power(0, 100)[1].tolist() == [True] * 3 + [False] * 97
    assert not second.read_mel_power(0, 100)[1].any()


def test_a_half_with_audio_alone_is_as_long_as_its_audio(tmp_path):
    folder = write_match(tmp_path)
    for pattern in (WIDE, FAST):
        (folder / pattern.format(half=1)).unlink()
    half = index(tmp_path)[0]
    assert half.seconds == 120.01
    assert half.read_mel_power(0, 100)[1].all() and not half.read_source(0, 0, 50)[1].any()


def test_mel_bands_come_first_where_both_axes_could_be_theirs(tmp_path):
    folder = write_match(tmp_path, seconds=(1, 1), audio=False)
    for half in (1, 2):
        np.save(folder / f"audio{half}.npy", grid(4, 4))
    assert index(tmp_path)[0].read_mel_power(1, 1)[0][0].tolist() == grid(4, 4)[:, 1].tolist()


# What indexing refuses


def refused(root: Path, *words: str, **data: object) -> None:
    with pytest.raises(UserError) as error:
        index(root, **data)
    one_line(error, *words)


def test_a_missing_root_says_where_the_files_come_from_and_how_to_run_the_demo(tmp_path):
    refused(tmp_path / "no", str(tmp_path / "no"), "data.root", "soccer-net.org", "configs/demo.py")
    write_match(tmp_path)
    refused(tmp_path, "data.audio_root", audio_root="/nowhere")


def test_a_root_that_is_not_set_names_the_key():
    with pytest.raises(UserError) as error:
        DataSpec.from_config(data_config(None))
    one_line(error, "data.root", "--config.data.root=DIR")


def test_a_missing_match_folder_is_named(tmp_path):
    write_match(tmp_path)
    with pytest.raises(UserError) as error:
        index(tmp_path, MATCH, "league/season/C - D")
    one_line(error, "league/season/C - D", str(tmp_path))


def test_a_wrong_width_names_file_and_key(tmp_path):
    folder = write_match(tmp_path)
    np.save(folder / "1_wide.npy", grid(120, 5))
    refused(tmp_path, "1_wide.npy", "5 columns", "announces 6", "data.sources")


def test_a_wrong_number_of_mel_bands_names_file_and_key(tmp_path):
    folder = write_match(tmp_path)
    np.save(folder / "audio2.npy", grid(12000, 5))
    refused(tmp_path, "audio2.npy", "data.audio.mels")


def test_audio_that_is_too_long_is_an_error_and_a_little_longer_is_cut(tmp_path):
    folder = write_match(tmp_path)
    np.save(folder / "audio1.npy", grid(12500, 4))
    assert index(tmp_path)[0].seconds == 120
    np.save(folder / "audio1.npy", grid(12501, 4))
    refused(tmp_path, "audio1.npy", "125.0 s", "120.0 s")


def test_a_source_longer_than_two_files_that_agree_is_an_error(tmp_path):
    folder = write_match(tmp_path)
    np.save(folder / "1_fast.npy", grid(252, 3))
    refused(tmp_path, "1_fast.npy", "126.0 s", "120.0 s")
    # Of two files alone, the shorter one is masked.
    assert index(tmp_path, audio=None)[0].seconds == 126


def test_a_source_absent_in_every_half_is_an_error(tmp_path):
    folder = write_match(tmp_path)
    for half in (1, 2):
        (folder / f"{half}_fast.npy").unlink()
    refused(tmp_path, "data.sources[1].pattern", "every half")
    write_match(tmp_path, audio=False)
    for half in (1, 2):
        (folder / f"audio{half}.npy").unlink()
    refused(tmp_path, "data.audio.pattern", "data.audio = None")


def test_a_half_with_no_file_at_all_is_an_error(tmp_path):
    folder = write_match(tmp_path)
    for path in folder.glob("*2*.npy"):
        path.unlink()
    refused(tmp_path, MATCH, "half 2")


def source(**changes: object) -> dict[str, object]:
    return {"sources": ({"pattern": WIDE, "rows_per_second": 1, "widths": (6,)} | changes,)}


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"classes": ()}, "data.classes"),
        ({"classes": ("Goal", "Goal")}, "data.classes"),
        ({"unknown_labels": "ignore"}, "data.unknown_labels"),
        ({"sources": (), "audio": None}, "data.sources"),
        (source(rate=1), "data.sources[0].rate"),
        ({"sources": ({"pattern": WIDE, "widths": (6,)},)}, "data.sources[0].rows_per_second"),
        (source(widths=()), "data.sources[0].widths"),
        (source(rows_per_second=0), "data.sources[0].rows_per_second"),
        (source(pattern="a.npy"), "{half}"),
        ({"audio": {"pattern": WIDE}}, "data.audio.frames_per_second"),
        ({"audio": data_config(".")["audio"] | {"mels": 0}}, "data.audio.mels"),
        ({"audio": data_config(".")["audio"] | {"mels": "many"}}, "data.audio.mels"),
        ({"audio": data_config(".")["audio"] | {"floor_db": math.nan}}, "data.audio.floor_db"),
        ({"audio": "audio{half}.npy"}, "data.audio: 'audio{half}.npy'"),
        ({"classes": "Goal"}, "data.classes"),
        ({"classes": (1, 2)}, "data.classes"),
        ({"sources": WIDE}, "data.sources: "),
        ({"sources": source()["sources"][0]}, "data.sources: a mapping"),
        ({"sources": (WIDE,)}, "data.sources: "),
        ({"sources": None}, "data.sources: None"),
        (source(widths=10), "data.sources[0].widths: 10"),
        (source(widths=(1.5,)), "data.sources[0].widths: (1.5,)"),
        (source(widths="six"), "data.sources[0].widths: 'six'"),
        (source(pattern=3), "data.sources[0].pattern: 3"),
        (source(pattern="{half}_{x}.npy"), "data.sources[0].pattern"),
        (source(pattern="{half}{"), "data.sources[0].pattern"),
        (source(rows_per_second=math.nan), "data.sources[0].rows_per_second: nan"),
        (source(rows_per_second=math.inf), "data.sources[0].rows_per_second: inf"),
        (source(shortcut_columns=7), "data.sources[0].shortcut_columns: 7"),
        (source(shortcut_columns=True), "data.sources[0].shortcut_columns: True"),
        (source(rows_per_second="1"), "data.sources[0].rows_per_second: '1'"),
        (source(rows_per_second=10**400), "data.sources[0].rows_per_second"),
    ],
)
def test_a_bad_config_names_its_key(tmp_path, change, word):
    with pytest.raises(UserError) as error:
        DataSpec.from_config(data_config(tmp_path, **change))
    one_line(error, word)


@pytest.mark.skipif(not COMMENTARY.is_dir(), reason="the real commentary features are not here")
def test_the_real_commentary_is_indexed_whole():
    sources = (
        {"pattern": "{half}_commentary_words.npy", "rows_per_second": 1, "widths": (17, 32)},
        {"pattern": "{half}_commentary_pace.npy", "rows_per_second": 2, "widths": (6,)},
    )
    matches = load_split(str(COMMENTARY / "train.txt")) + load_split(
        str(COMMENTARY / "held_out.txt")
    )
    halves = index(COMMENTARY, *matches, sources=sources, audio=None)
    assert len(matches) == 100 and len(halves) == 200
    assert sum(len(half.events) for half in halves) > 20_000
    for half in halves:
        values, present = half.read_source(0, int(half.seconds) - 25, 50)
        assert present.all() and values.shape == (50, 49)


def test_a_slice_takes_a_part_of_a_split_and_a_path_may_count_from_the_root(tmp_path):
    (tmp_path / "mine.txt").write_text("l/s/A\nl/s/B\nl/s/C\n", encoding="utf-8")
    assert load_split("mine.txt[:2]", tmp_path) == ("l/s/A", "l/s/B")
    assert load_split("mine.txt[-1:]", tmp_path) == ("l/s/C",)
    assert load_split("train[290:]") == load_split("train")[290:]
    with pytest.raises(UserError, match="lists no match"):
        load_split("mine.txt[5:]", tmp_path)
    with pytest.raises(UserError, match="neither"):
        load_split("mine.txt")
