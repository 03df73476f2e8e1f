"""What is read of a half: past its end, past the end of a short file, where a file is absent."""

import logging

import numpy as np
from helpers.matches import FAST, WIDE, grid, index, write_match


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
    assert float(half.seconds) == 120.01
    assert half.read_mel_power(0, 100)[1].all() and not half.read_source(0, 0, 50)[1].any()


def test_mel_bands_come_first_where_both_axes_could_be_theirs(tmp_path):
    folder = write_match(tmp_path, seconds=(1, 1), audio=False)
    for half in (1, 2):
        np.save(folder / f"audio{half}.npy", grid(4, 4))
    assert index(tmp_path)[0].read_mel_power(1, 1)[0][0].tolist() == grid(4, 4)[:, 1].tolist()
