"""The halves of matches from their files: where they lie, how long they are, what is refused."""

import logging
from pathlib import Path

import numpy as np
import pytest
from helpers.errors import check_line
from helpers.matches import MATCH, annotation, data_config, grid, index, write_match

from astra_jax.data.index import index_halves
from astra_jax.data.sources import DataSpec
from astra_jax.data.splits import load_split
from astra_jax.errors import UserError

COMMENTARY = Path(__file__).parents[2] / "shared" / "data" / "commentary"


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
    check_line(error, "Labels-v2.json", "no such label file")


def test_other_class_lists_are_followed(tmp_path):
    write_match(tmp_path, annotations=[annotation(1, 5, "PASS")])
    assert index(tmp_path, classes=("DRIVE", "PASS"))[0].events.class_ids.tolist() == [1]


def test_events_past_the_end_of_their_half_are_left_out_with_one_line_a_match(tmp_path, caplog):
    rows = [annotation(half, ms) for half in (1, 2) for ms in (0, 119_999, 120_000, 500_000)]
    write_match(tmp_path, annotations=rows)
    with caplog.at_level(logging.WARNING):
        halves = index(tmp_path)
    assert [half.events.milliseconds.tolist() for half in halves] == [[0, 119_999]] * 2
    assert len(caplog.records) == 1 and "4 event(s)" in caplog.text and MATCH in caplog.text


def refused(root: Path, *words: str, **data: object) -> None:
    with pytest.raises(UserError) as error:
        index(root, **data)
    check_line(error, *words)


def test_a_missing_root_says_where_the_files_come_from_and_how_to_run_the_demo(tmp_path):
    refused(tmp_path / "no", str(tmp_path / "no"), "data.root", "soccer-net.org", "configs/demo.py")
    write_match(tmp_path)
    refused(tmp_path, "data.audio_root", audio_root="/nowhere")


def test_a_missing_match_folder_is_named(tmp_path):
    write_match(tmp_path)
    with pytest.raises(UserError) as error:
        index(tmp_path, MATCH, "league/season/C - D")
    check_line(error, "league/season/C - D", str(tmp_path))


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


def lose_half(folder: Path, half: int = 2) -> None:
    """Takes a half's files away."""
    for name in (f"{half}_wide.npy", f"{half}_fast.npy", f"audio{half}.npy"):
        (folder / name).unlink()


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_a_half_without_files_is_left_out_with_one_line_that_counts_its_labels(tmp_path, caplog):
    rows = [annotation(half, 1000 * s) for half in (1, 2, 2) for s in (5, 50)]
    lose_half(write_match(tmp_path, annotations=rows))
    halves = index(tmp_path)
    assert [(half.half, half.seconds, len(half.events)) for half in halves] == [(1, 120, 2)]
    (line,) = messages(caplog)
    assert line == f"halves without files: 1 left out ({MATCH} half 2); 4 label(s) lie in them"


def test_files_without_rows_are_no_half(tmp_path, caplog):
    folder = write_match(tmp_path)
    for name, shape in (("2_wide", (0, 6)), ("2_fast", (0, 3)), ("audio2", (4, 0))):
        np.save(folder / f"{name}.npy", np.zeros(shape, np.float32))
    assert [half.half for half in index(tmp_path)] == [1]
    assert messages(caplog) == [f"halves without files: 1 left out ({MATCH} half 2)"]


def test_an_empty_file_beside_another_is_masked_with_one_line(tmp_path, caplog):
    folder = write_match(tmp_path)
    np.save(folder / "2_fast.npy", np.zeros((0, 3), np.float32))
    (folder / "audio1.npy").unlink()
    halves = index(tmp_path)
    assert [half.seconds for half in halves] == [120, 120]
    assert not halves[1].read_source(1, 0, 10)[1].any()
    assert messages(caplog) == [
        f"{folder / 'audio1.npy'}: absent, masked",
        f"{folder / '2_fast.npy'}: empty, masked",
    ]


def test_many_halves_without_files_are_one_line(tmp_path, caplog):
    matches = [f"league/season/{name}" for name in "abcde"]
    for match in matches:
        lose_half(write_match(tmp_path, match))
    assert [half.half for half in index(tmp_path, *matches)] == [1] * 5
    (line,) = messages(caplog)
    assert "5 left out (league/season/a half 2, " in line and "and 2 more)" in line


def test_only_a_match_without_any_half_is_an_error(tmp_path):
    folder = write_match(tmp_path)
    lose_half(folder, 1)
    assert [half.half for half in index(tmp_path)] == [2]
    refused(tmp_path, MATCH, "1_wide.npy and no 1_fast.npy", "data.periods", periods=(1,))
    lose_half(folder, 2)
    refused(tmp_path, MATCH, "1/2_wide.npy", "audio1/2.npy", str(folder), "data.sources")


def test_the_chosen_periods_are_indexed_whatever_their_numbers(tmp_path, caplog):
    rows = [annotation(half, 1000 * half) for half in range(1, 10)]
    write_match(tmp_path, seconds=(120, 110, 30, 20), annotations=rows)

    def found(*periods: int) -> list[tuple[int, float, list[int]]]:
        halves = index(tmp_path, periods=periods)
        return [(h.half, h.seconds, h.events.milliseconds.tolist()) for h in halves]

    whole = [(1, 120, [1000]), (2, 110, [2000]), (3, 30, [3000]), (4, 20, [4000])]
    assert found(1, 2, 3, 4) == whole and found(3, 1) == [whole[0], whole[2]]
    # Of the others' labels there is a line, and no other one.
    assert len(caplog.records) == 2 and "halves without files" not in caplog.text
    assert index(tmp_path, periods=[4])[0].read_source(0, 7, 1)[0][0, 0] == 4007


def test_labels_of_other_periods_are_one_line_whatever_the_number_of_matches(tmp_path, caplog):
    matches = [f"league/season/{name}" for name in "abc"]
    for match in matches:
        write_match(tmp_path, match, annotations=[annotation(half, 0) for half in (1, 2, 3, 5)])
    assert len(index(tmp_path, *matches)) == 6
    assert messages(caplog) == [
        "6 label(s) of period(s) 3, 5 left out; data.periods names those that count"
    ]


def test_halves_longer_than_two_hours_are_one_line(tmp_path, caplog):
    folder = write_match(tmp_path, seconds=(7200, 60))
    only = {"sources": (data_config(None)["sources"][0],), "audio": None}
    assert index(tmp_path, **only)[0].seconds == 7200 and not caplog.records
    for half in (1, 2):  # 45 minutes at 25 rows a second, read as one a second
        np.save(folder / f"{half}_wide.npy", np.zeros((45 * 60 * 25, 6), np.float16))
    index(tmp_path, **only)
    (line,) = messages(caplog)
    for words in ("two hours: 2 ", f"{MATCH} half 1: 18.8 h", "one frame", "rows_per_second"):
        assert words in line


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
