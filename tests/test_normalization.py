"""Sources at mean 0 and one deviation, by the training matches' statistics."""

import json

import numpy as np
import pytest
from helpers.matches import FAST, WIDE, index, write_match

from astra_jax.data.halves import Normalization
from astra_jax.data.normalization import (
    load_normalizations,
    measure_normalizations,
    normalize,
    save_normalizations,
)
from astra_jax.errors import UserError

SOURCES = (
    {"pattern": WIDE, "rows_per_second": 1, "widths": (4, 2)},
    {"pattern": FAST, "rows_per_second": 2, "widths": (3,), "normalize": False},
)


@pytest.fixture
def halves(tmp_path):
    folder = write_match(tmp_path, seconds=(80, 40), audio=False)
    rng = np.random.default_rng(0)
    for half, rows in ((1, 80), (2, 40)):
        values = rng.normal([5, 5, 5, 5, 0, 0], [1, 2, 4, 1e-6, 3, 3], (rows, 6))
        np.save(folder / WIDE.format(half=half), values.astype(np.float32))
    return index(tmp_path, sources=SOURCES, audio=None)


def test_columns_are_centred_and_share_one_scale(halves):
    norms = measure_normalizations(halves)
    whole = normalize(halves, norms)
    rows, raw = (
        np.concatenate([half.read_source(0, 0, int(half.seconds))[0] for half in found])
        for found in (whole, halves)
    )
    np.testing.assert_allclose(rows.mean(axis=0), 0, atol=1e-5)
    assert np.mean(np.square(rows)) == pytest.approx(1, abs=1e-4)
    # What moves little beside the others still does.
    np.testing.assert_allclose(
        rows.std(axis=0) / rows.std(axis=0).max(),
        raw.std(axis=0) / raw.std(axis=0).max(),
        atol=1e-4,
    )


def test_a_source_can_be_taken_as_it_is(halves):
    norms = measure_normalizations(halves)
    assert norms[1] is None
    for before, after in zip(halves, normalize(halves, norms), strict=True):
        np.testing.assert_array_equal(before.read_source(1, 3, 9)[0], after.read_source(1, 3, 9)[0])


def test_absent_rows_stay_zero(halves):
    halves[0].sources[0].path.unlink()
    again = index(halves[0].spec.features_root, sources=SOURCES, audio=None)
    rows, present = normalize(again, measure_normalizations(halves[1:]))[0].read_source(0, 0, 10)
    assert not rows.any() and not present.any()


def test_a_source_without_spread_is_only_centred(tmp_path):
    folder = write_match(tmp_path, seconds=(30, 30), audio=False)
    for half in (1, 2):
        np.save(folder / WIDE.format(half=half), np.full((30, 6), 7, np.float32))
    halves = index(tmp_path, sources=SOURCES, audio=None)
    rows, _ = normalize(halves, measure_normalizations(halves))[0].read_source(0, 0, 30)
    np.testing.assert_array_equal(rows, 0)


def test_they_come_back_from_their_file_to_the_bit(halves, tmp_path):
    norms = measure_normalizations(halves)
    path = tmp_path / "run" / "normalization.json"
    save_normalizations(path, norms)
    loaded = load_normalizations(path)
    assert loaded[1] is None and isinstance(loaded[0], Normalization)
    assert loaded[0].mean.tobytes() == norms[0].mean.tobytes()
    assert loaded[0].scale == norms[0].scale


@pytest.mark.parametrize("content", [None, "{", json.dumps([{"mean": [1]}])])
def test_an_absent_or_damaged_file_is_one_line(tmp_path, content):
    path = tmp_path / "normalization.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match="normalisation of a run"):
        load_normalizations(path)


def test_statistics_of_other_sources_are_refused(halves):
    norms = measure_normalizations(halves)
    for others in (norms[:1], (Normalization(norms[0].mean[:3], norms[0].scale), None)):
        with pytest.raises(UserError, match="other sources"):
            normalize(halves, others)
