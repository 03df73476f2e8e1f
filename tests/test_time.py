"""Time has one home: exact against Python's fractions, and no second of a half is left out."""

import math
import re
from fractions import Fraction

import numpy as np
import pytest
from helpers.examples import for_any
from helpers.matches import FAST, WIDE, data_config, index, write_match
from hypothesis import strategies as st

from astra_jax.config import paper
from astra_jax.data.clips import read_inputs, read_targets
from astra_jax.data.sources import DataSpec
from astra_jax.data.targets import ClipConfig, TargetSpec
from astra_jax.data.time import (
    clip_starts,
    duration,
    exact_rate,
    exact_seconds,
    index_at,
    indices_at,
    longest_stride,
    millisecond_of,
    steps_of,
    steps_touched,
)
from astra_jax.errors import UserError
from astra_jax.model import Predictions
from astra_jax.runs.folder import RunFolder
from astra_jax.runs.settings import Settings, resolve
from astra_jax.spotting.inference import InferenceConfig
from astra_jax.spotting.windows import merge_windows

RATES = (1, 2, 5, 10, 12.5, 25, 29.97, 50, 100)
EXACT = {29.97: Fraction(30000, 1001), 12.5: Fraction(25, 2)}
HALF_MS = 50 * 60 * 1000

lengths = st.decimals("0.1", "300", places=3).map(float)
rates = st.one_of(
    st.sampled_from([0.5, 1, 1.998, 2, 12.5, 23.976, 29.97, 30000 / 1001 / 15, 1 / 3, 25 / 12]),
    st.decimals("0.2", "60", places=3).map(float),
)


@pytest.mark.parametrize("rate", RATES)
def test_every_millisecond_of_a_half_lies_where_fractions_say(rate: float) -> None:
    exact = EXACT.get(rate, Fraction(rate))
    # Index k begins where the fraction k / rate does: at the first millisecond not below it.
    begins = [math.ceil(k / exact * 1000) for k in range(math.ceil(HALF_MS / 1000 * exact) + 1)]
    times = np.arange(HALF_MS)
    right = np.searchsorted(begins, times, side="right") - 1
    np.testing.assert_array_equal(indices_at(times, rate), right)
    for ms in range(0, HALF_MS, 997):
        assert index_at(Fraction(ms, 1000), rate) == right[ms] == math.floor(ms * exact / 1000)


def test_290_milliseconds_are_position_29_at_100_a_second() -> None:
    assert indices_at(np.array([290, 570, 1_160]), 100).tolist() == [29, 57, 116]


@pytest.mark.parametrize("rate", [*RATES, 3, 1 / 3, 25 / 12, 1.998, 23.976])
def test_a_positions_millisecond_lies_in_the_position(rate: float) -> None:
    positions = np.arange(10_000)
    times = np.array([millisecond_of(int(position), rate) for position in positions])
    np.testing.assert_array_equal(indices_at(times, rate), positions)
    assert (indices_at(times[1:] - 1, rate) < positions[1:]).all()


@pytest.mark.parametrize(
    ("rate", "exact"),
    [
        (29.97, Fraction(30000, 1001)),
        (59.94, Fraction(60000, 1001)),
        (119.88, Fraction(120000, 1001)),
        (239.76, Fraction(240000, 1001)),
        (23.976, Fraction(24000, 1001)),
        (1.998, Fraction(2000, 1001)),
        (0.999, Fraction(1000, 1001)),
        (1.4985, Fraction(1500, 1001)),
        (30000 / 1001 / 15, Fraction(2000, 1001)),
        (30000 / 1001, Fraction(30000, 1001)),
        ("30000/1001", Fraction(30000, 1001)),
        (" 25 / 12 ", Fraction(25, 12)),
        (25, Fraction(25)),
        (25.0, Fraction(25)),
        (999.0, Fraction(999)),
        (12.5, Fraction(25, 2)),
        (0.1, Fraction(1, 10)),
        # Rates of audio, and one close to that of video, stay what they are.
        (62.5, Fraction(125, 2)),
        (31.25, Fraction(125, 4)),
        (43.06640625, Fraction(44100, 1024)),
        (29.9, Fraction(299, 10)),
        (25.1, Fraction(251, 10)),
        (100.5, Fraction(201, 2)),
        (Fraction(30, 1), Fraction(30)),
    ],
)
def test_rates_are_exact_and_those_of_video_are_what_they_mean(rate, exact) -> None:
    assert exact_rate(rate) == exact


@pytest.mark.parametrize("rate", ["", "30", "1/0", "a/b", "1/2/3", "-1/2", "1.5/2", 0, -1.0])
def test_what_is_no_rate_is_refused(rate) -> None:
    with pytest.raises(ValueError, match="it must be"):
        exact_rate(rate)


def test_seconds_are_what_their_digits_say() -> None:
    assert exact_seconds(0.1) == Fraction(1, 10)
    assert duration(80919, 29.97) == Fraction(80919 * 1001, 30000)


@for_any(rates, st.integers(0, 400_000))
def test_the_rows_of_a_file_fill_its_duration(rate: float, rows: int) -> None:
    assert index_at(duration(rows, rate), rate) == rows
    assert steps_touched(duration(rows, rate), rate) == max(rows, 1)


@for_any(lengths, lengths, lengths, rates)
def test_every_position_is_predicted_at_every_legal_stride(seconds, clip, stride, rate) -> None:
    """And at no other one: a stride that leaves positions out is none."""
    stride = min(stride, clip)
    positions = steps_of(clip, rate)
    if not positions or stride * rate < 1:
        return
    total = steps_touched(seconds, rate)
    covered = np.zeros(total, bool)
    starts = clip_starts(seconds, stride, clip, rate)
    for start in starts:
        first = index_at(start, rate)
        assert first < total
        covered[first : first + positions] = True
    if exact_seconds(stride) <= longest_stride(clip, rate):
        assert covered.all()
    else:
        # Sooner or later a gap shows: two starts of a long half lie too far apart.
        many = [index_at(k * exact_seconds(stride), rate) for k in range(2000)]
        exact = exact_seconds(stride) * exact_rate(rate)
        assert max(np.diff(many)) > positions or exact.denominator > 2000


@for_any(lengths, st.integers(1, 20), st.integers(1, 20))
def test_the_mean_of_windows_is_one_everywhere_where_all_say_one(seconds, clip, stride) -> None:
    """No position divides nothing by nothing."""
    starts = clip_starts(seconds, min(stride, clip), clip, 2)
    ones = np.ones((len(starts), 2 * clip, 2), np.float32)
    said = [Predictions(ones, np.zeros_like(ones), np.zeros_like(ones))]
    dense = merge_windows(said, starts, seconds, 2.0, "mean", 0.01)
    np.testing.assert_allclose(dense.scores, 1.0, rtol=1e-6)


@pytest.mark.parametrize("stride", [49.5, 50.0])
@pytest.mark.parametrize("seconds", [50.5, 51, 99.5, 100, 100.5, 101, 2700, 2701])
def test_the_last_second_is_predicted_at_strides_of_a_clips_length(seconds, stride) -> None:
    starts = clip_starts(seconds, stride, 50, 2)
    assert index_at(starts[-1], 2) + 100 >= 2 * seconds
    assert starts[-1] < seconds


def test_strides_that_leave_positions_out_are_refused() -> None:
    clip = ClipConfig(seconds=1.2, positions_per_second=2.0)  # 2.4 positions: 2
    inference = {
        "stride_seconds": 1.2,
        "overlap": "mean",
        "batch_size": 1,
        "threshold": 0.01,
        "suppression": {
            "kind": "soft",
            "decay": "quadratic",
            "windows_seconds": (1.0,),
            "window_scale": 1.0,
        },
    }
    with pytest.raises(UserError, match=r"stride_seconds: 1.2, .* at most 1\.0, .*left out"):
        InferenceConfig.from_config(inference, clip, 1)
    InferenceConfig.from_config(inference | {"stride_seconds": 1.0}, clip, 1)


def test_the_longest_stride_that_a_message_names_is_one_that_is_taken():
    """599 positions at 30000/1001 a second last 19.98663 s and something, which no float is."""
    clip, section = ClipConfig(20.0, 29.97), paper().inference.to_dict()
    section["stride_seconds"] = 20.0
    with pytest.raises(UserError) as refusal:
        InferenceConfig.from_config(section, clip, 17)
    section["stride_seconds"] = float(re.findall(r"at most ([\d.]+),", str(refusal.value))[0])
    InferenceConfig.from_config(section, clip, 17)
    assert section["stride_seconds"] > 19.98


def test_the_published_windows_and_clips_stay_where_they_were() -> None:
    for seconds in range(1, 400):
        assert clip_starts(seconds, 25, 50, 2) == list(range(0, max(seconds - 1, 1), 25))
        assert clip_starts(seconds, 8, 50, 2) == list(range(0, max(seconds - 1, 1), 8))


def test_features_and_targets_of_a_clip_start_at_the_same_row(tmp_path) -> None:
    """A stride of 12.5 s at a row and a position a second: both at 12."""
    write_match(
        tmp_path,
        annotations=[{"gameTime": "1 - 00:14", "label": "Goal", "position": "14000"}],
    )
    half = index(tmp_path)[0]
    inputs = read_inputs(half, 12.5, 25)
    assert inputs["features"][0][0, 0] % 1000 == 12  # the row's number
    assert inputs["features"][1][0, 0] % 1000 == 25
    spec = TargetSpec(25, 1, 0, 0, num_classes=17)
    goal = read_targets(half, 12.5, spec).class_targets[:, 1:].any(axis=1)
    assert np.flatnonzero(goal).tolist() == [14 - 12]


@pytest.mark.parametrize("rate", [1.998, 23.976, "30000/1001", 30000 / 1001 / 15])
def test_clips_of_any_length_fit_rates_of_ntsc_video(rate, tmp_path) -> None:
    config = paper()
    with config.ignore_type():
        config.data.sources = (
            {"pattern": "{half}_f.npy", "rows_per_second": rate, "widths": (4,)},
        )
        config.data.audio = None
    config.data.root = str(tmp_path)
    settings = Settings.from_config(resolve(config, RunFolder(tmp_path)))
    rows = settings.model.sources[0].rows
    assert abs(rows - 50 * exact_rate(rate)) <= 0.5


def test_rows_of_ntsc_video_do_not_drift_over_a_half(tmp_path) -> None:
    """Rows of every 15th frame: a half of 45 minutes has 5,394 of them, its last clip too."""
    sources = (
        {"pattern": WIDE, "rows_per_second": 1.998, "widths": (4, 2)},
        {"pattern": FAST, "rows_per_second": "30000/1001", "widths": (3,)},
    )
    spec = DataSpec.from_config(data_config(tmp_path, sources=sources))
    slow, fast = (source.rows_per_second for source in spec.sources)
    assert (slow, fast) == (Fraction(2000, 1001), Fraction(30000, 1001))
    assert (steps_of(50.0, slow), steps_of(50.0, fast)) == (100, 1499)
    starts = clip_starts(2700, 25, 50, 2)
    for start in starts:
        assert 0 <= start - duration(index_at(start, slow), slow) < 1 / slow
        assert 0 <= start - duration(index_at(start, fast), fast) < 1 / fast
