"""The half's clock as a source."""

import numpy as np
import pytest
from helpers.matches import FAST, WIDE, index, write_match

from astra_jax.config.clock import CLOCK_DECAYS_SECONDS
from astra_jax.data.clips import read_inputs
from astra_jax.data.clock import Clock
from astra_jax.data.normalization import measure_normalizations, normalize
from astra_jax.errors import UserError

CLOCK = {"pattern": "clock", "rows_per_second": 2, "widths": (8,)}
SOURCES = ({"pattern": WIDE, "rows_per_second": 1, "widths": (4, 2)}, CLOCK)


def test_the_clock_falls_from_the_start_and_rises_to_the_end():
    clock = Clock(seconds=100.5, rows_per_second=2.0)
    assert clock.rows == 201
    rows = clock.read(0, 201)
    assert rows.shape == (201, 8) and rows.dtype == np.float32
    assert rows[0, :4].tolist() == [1, 1, 1, 1] and rows[-1, 4:].tolist() == [1, 1, 1, 1]
    # Row 20 is second 10, 90 s before the last row.
    np.testing.assert_allclose(
        rows[20, :4], np.exp(-10 / np.array(CLOCK_DECAYS_SECONDS)), rtol=1e-6
    )
    np.testing.assert_allclose(
        rows[20, 4:], np.exp(-90 / np.array(CLOCK_DECAYS_SECONDS)), rtol=1e-5
    )


def test_a_clip_is_told_where_in_its_half_it_lies(tmp_path):
    write_match(tmp_path, seconds=(120, 80), audio=False)
    halves = index(tmp_path, sources=SOURCES, audio=None)
    norms = measure_normalizations(halves)
    assert norms[0] is not None and norms[1] is None
    for half in normalize(halves, norms):
        inputs = read_inputs(half, 50.0, 50.0)
        clock, present = inputs["features"][1], inputs["masks"]["features"][1]
        assert clock.shape == (100, 8) and present.all()
        np.testing.assert_allclose(clock[0, 2], np.exp(-50 / 60), rtol=1e-6)
        # Past the half's end its last row repeats.
        assert clock[60:, 7].max() == pytest.approx(
            1 if half.half == 2 else np.exp(-20 / 300), rel=2e-2
        )


def test_a_clock_beside_absent_files_is_no_length(tmp_path):
    folder = write_match(tmp_path, audio=False)
    (folder / WIDE.format(half=1)).unlink()
    assert [half.half for half in index(tmp_path, sources=SOURCES, audio=None)] == [2]
    (folder / WIDE.format(half=2)).unlink()
    with pytest.raises(UserError, match="has no 1/2_wide.npy with a row"):
        index(tmp_path, sources=SOURCES, audio=None)


@pytest.mark.parametrize("rate", [0.2, 0.5, 1.0, 3.7])
@pytest.mark.parametrize("seconds", [80, 81, 119])
def test_the_last_row_of_any_half_is_its_end(tmp_path, rate, seconds):
    write_match(tmp_path, seconds=(seconds, seconds), audio=False)
    sources = (SOURCES[0], CLOCK | {"rows_per_second": rate})
    half = index(tmp_path, sources=sources, audio=None)[0]
    rows, present = half.read_source(1, 0, 1000)
    assert present.all() and (rows[-1, 4:] == 1).all() and (rows[0, :4] == 1).all()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"widths": (7,)}, "widths: .* the widths .8,"),
        ({"widths": (4, 4)}, "widths: .* the widths .8,"),
        ({"rows_per_second": 0.1}, "rows_per_second: 0.1, .* at least 0.2"),
        ({"normalize": True}, "normalize: True, but"),
    ],
)
def test_an_impossible_clock_is_refused(tmp_path, changes, named):
    write_match(tmp_path, audio=False)
    with pytest.raises(UserError, match=r"data.sources\[1\]." + named):
        index(tmp_path, sources=(SOURCES[0], CLOCK | changes), audio=None)


def test_a_clock_alone_is_no_data(tmp_path):
    write_match(tmp_path)
    with pytest.raises(UserError, match="name at least one file's pattern beside the clock"):
        index(tmp_path, sources=(CLOCK,), audio=None)


def test_a_clock_beside_audio_needs_no_folder_of_features(tmp_path):
    write_match(tmp_path)
    halves = index(tmp_path, sources=(CLOCK,), features_root=str(tmp_path / "nowhere"))
    assert [half.seconds for half in halves] == [pytest.approx(120, abs=0.1)] * 2


def test_a_file_is_still_named_by_half(tmp_path):
    write_match(tmp_path, audio=False)
    with pytest.raises(UserError, match="pattern"):
        index(tmp_path, sources=(CLOCK | {"pattern": "clocks"},), audio=None)
    assert index(tmp_path, sources=(CLOCK, CLOCK | {"pattern": FAST, "widths": (3,)}), audio=None)
