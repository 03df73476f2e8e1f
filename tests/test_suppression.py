"""Soft and hard suppression: the published recordings, and tables worked out by hand."""

from pathlib import Path

import numpy as np
import pytest

from astra_jax.config.classes import CLASSES, SOFT_WINDOWS_SECONDS
from astra_jax.errors import UserError
from astra_jax.spotting.suppression import Spots, SuppressionSpec, suppress

GOLDEN = Path(__file__).parent / "golden" / "postprocess.npz"


def spots_of(scores: list[float], **spec: object) -> list[tuple[int, float]]:
    """Positions and rounded scores of the only class."""
    column = np.array(scores, dtype=np.float32)[:, None].astype(np.float64)
    spots = suppress(column.round(6), SuppressionSpec(**spec))
    return [
        (int(i), round(float(s), 6)) for i, s in zip(spots.positions, spots.scores, strict=True)
    ]


@pytest.mark.parametrize(
    ("recording", "spec"),
    [
        ("soft_nms", SuppressionSpec()),
        ("soft_nms_linear", SuppressionSpec(decay="linear")),
        ("soft_nms_sqrt", SuppressionSpec(decay="sqrt")),
        ("nms_window8", SuppressionSpec(kind="hard", windows_seconds=(8.0,))),
    ],
)
def test_every_recorded_variant_gives_the_recorded_spots_in_order(
    recording: str, spec: SuppressionSpec
) -> None:
    with np.load(GOLDEN) as golden:
        dense, expected = golden["dense"], golden[recording]
    spots = suppress(dense, spec)
    np.testing.assert_array_equal(spots.class_ids, expected[:, 0])
    np.testing.assert_array_equal(spots.positions, expected[:, 1])
    np.testing.assert_allclose(spots.scores, expected[:, 2], rtol=0, atol=1e-9)


def test_the_published_windows_are_the_recorded_ones() -> None:
    with np.load(GOLDEN) as golden:
        assert tuple(golden["windows_seconds"]) == SOFT_WINDOWS_SECONDS
    assert len(SOFT_WINDOWS_SECONDS) == len(CLASSES)


def test_quadratic_weights_by_hand() -> None:
    # A window of 4 s reaches 4 positions either way; distances 1, 2, 4 weigh 1/16, 4/16, 1.
    scores = [0.0, 0.8, 0.4, 0.4, 0.0, 0.5, 0.0]
    # Position 5 weakens 3 (distance 2) from 0.1 to 0.025 and 2 (distance 3) from 0.025 to 0.014;
    # then 3 sends 2 below the threshold.
    expected = [(1, 0.8), (5, 0.5), (3, 0.025)]
    assert spots_of(scores, windows_seconds=(4.0,)) == expected


@pytest.mark.parametrize(("decay", "weight"), [("linear", 0.25), ("sqrt", 0.5)])
def test_other_decays_weigh_a_neighbour_by_hand(decay: str, weight: float) -> None:
    # The neighbour lies a quarter of the half-window away.
    expected = [(0, 0.8), (1, 0.4 * weight)]
    assert spots_of([0.8, 0.4], windows_seconds=(4.0,), decay=decay) == expected


def test_a_half_window_between_positions_reaches_only_whole_positions_inside() -> None:
    # 5 s at 1 a second: half a window is 2.5 positions. Weights (1/2.5)^2, (2/2.5)^2, then none.
    spots = spots_of([0.9, 0.5, 0.5, 0.5], windows_seconds=(5.0,), positions_per_second=1.0)
    # 3 is out of reach of 0 and weakens 1 and 2 as 0 does from the other side, to 0.0512 each;
    # of these 1 comes first and sends 2 below the threshold.
    assert spots == [(0, 0.9), (3, 0.5), (1, 0.0512)]


@pytest.mark.parametrize("rate", [0.3, 1.0, 2.0, 3.7, 25.0])
def test_no_rate_ever_raises_a_score(rate: float) -> None:
    dense = np.random.default_rng(0).random((300, 1))
    spots = suppress(dense, SuppressionSpec(windows_seconds=(7.0,), positions_per_second=rate))
    assert (np.diff(spots.scores) <= 0).all()
    assert (spots.scores <= dense[spots.positions, 0]).all()
    assert len(set(spots.positions.tolist())) == len(spots.positions)


def test_the_hard_window_is_open_at_its_end() -> None:
    # 4 s at 2 a second: [i - 4, i + 4) goes, so 8 - 4 = 4 goes and 8 + 4 = 12 stays.
    scores = [0.1] * 13
    scores[8] = 0.9
    spots = spots_of(scores, kind="hard", windows_seconds=(4.0,))
    assert spots == [(8, 0.9), (0, 0.1), (12, 0.1)]


def test_a_hard_window_smaller_than_a_position_removes_the_spot_itself() -> None:
    assert spots_of([0.5, 0.4], kind="hard", windows_seconds=(0.1,)) == [(0, 0.5), (1, 0.4)]


def test_the_earliest_of_equal_scores_comes_first_and_the_threshold_is_a_spot() -> None:
    assert spots_of([0.01, 0.0, 0.3, 0.009, 0.3], windows_seconds=(0.5,)) == [
        (2, 0.3),
        (4, 0.3),
        (0, 0.01),
    ]


def test_classes_are_suppressed_apart_and_the_input_stays_as_it_was() -> None:
    dense = np.array([[0.9, 0.2], [0.8, 0.7]], dtype=np.float32)
    before = dense.copy()
    spots = suppress(dense, SuppressionSpec(kind="hard", windows_seconds=(1.0, 9.0)))
    assert spots.class_ids.tolist() == [0, 0, 1]
    assert spots.positions.tolist() == [0, 1, 1]
    np.testing.assert_array_equal(dense, before)
    assert spots.sigma_seconds is None


@pytest.mark.parametrize("shape", [(0, 3), (5, 3)])
def test_a_half_without_scores_has_no_spots(shape: tuple[int, int]) -> None:
    spots = suppress(np.zeros(shape), SuppressionSpec(windows_seconds=(5.0,)))
    assert isinstance(spots, Spots)
    assert len(spots.class_ids) == len(spots.positions) == len(spots.scores) == 0


def test_nan_scores_are_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        suppress(np.array([[0.5], [np.nan]]), SuppressionSpec(windows_seconds=(5.0,)))


def test_the_config_is_read_and_its_mistakes_are_named() -> None:
    config = {"kind": "hard", "decay": "linear", "windows_seconds": [8], "window_scale": 1.0}
    expected = SuppressionSpec("hard", "linear", (8.0,), 4.0, 0.2)
    assert SuppressionSpec.from_config(config, 4.0, threshold=0.2) == expected
    for key, value in (
        ("kind", "firm"),
        ("decay", "cubic"),
        ("windows_seconds", []),
        ("windows_seconds", [5, 0]),
        ("windows_seconds", [float("nan")]),
    ):
        with pytest.raises(UserError, match=f"inference.suppression.{key}"):
            SuppressionSpec.from_config(config | {key: value}, 2.0)
    with pytest.raises(UserError, match="inference.threshold"):
        SuppressionSpec(threshold=0.0)


def test_windows_must_fit_the_classes() -> None:
    with pytest.raises(UserError, match="17 windows for 3 classes"):
        suppress(np.zeros((4, 3)), SuppressionSpec())
