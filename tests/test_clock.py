"""The half's clock as a source."""

import numpy as np
import pytest
from matches import FAST, WIDE, index, write_match

from astra_jax.data.clips import read_inputs
from astra_jax.data.clock import DECAYS_SECONDS, Clock
from astra_jax.data.normalization import measure, normalized
from astra_jax.errors import UserError

CLOCK = {"pattern": "clock", "rows_per_second": 2, "widths": (8,)}
SOURCES = ({"pattern": WIDE, "rows_per_second": 1, "widths": (4, 2)}, CLOCK)


def test_the_clock_falls_from_the_start_and_rises_to_the_end():
    rows = Clock(rows=201, rows_per_second=2.0).read(0, 201)
    assert rows.shape == (201, 8) and rows.dtype == np.float32
    assert rows[0, :4].tolist() == [1, 1, 1, 1] and rows[-1, 4:].tolist() == [1, 1, 1, 1]
    # Row 20 is second 10, 90 s before the last row.
    np.testing.assert_allclose(rows[20, :4], np.exp(-10 / np.array(DECAYS_SECONDS)), rtol=1e-6)
    np.testing.assert_allclose(rows[20, 4:], np.exp(-90 / np.array(DECAYS_SECONDS)), rtol=1e-5)


def test_a_clip_is_told_where_in_its_half_it_lies(tmp_path):
    write_match(tmp_path, seconds=(120, 80), audio=False)
    halves = index(tmp_path, sources=SOURCES, audio=None)
    norms = measure(halves)
    assert norms[0] is not None and norms[1] is None
    for half in normalized(halves, norms):
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
    with pytest.raises(UserError, match="half 1 has neither features nor audio"):
        index(tmp_path, sources=SOURCES, audio=None)


@pytest.mark.parametrize("widths", [(7,), (4, 4)])
def test_a_clock_of_other_widths_is_refused(tmp_path, widths):
    write_match(tmp_path, audio=False)
    with pytest.raises(UserError, match=r"data.sources\[0\].widths: .* the widths \(8,\)"):
        index(tmp_path, sources=(CLOCK | {"widths": widths},), audio=None)


def test_a_file_is_still_named_by_half(tmp_path):
    write_match(tmp_path, audio=False)
    with pytest.raises(UserError, match="pattern"):
        index(tmp_path, sources=(CLOCK | {"pattern": "clocks"},), audio=None)
    assert index(tmp_path, sources=(CLOCK, CLOCK | {"pattern": FAST, "widths": (3,)}), audio=None)
