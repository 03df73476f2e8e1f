"""The official metric: numbers worked out by hand."""

from typing import Any

import pytest

from astra_jax.config.classes import CLASSES
from astra_jax.errors import UserError
from astra_jax.evaluation.metrics import METRICS, SUBSETS, average_map, average_maps

MATCH = "league/season/match"
Entries = list[dict[str, Any]]


def event(frame: int, label: str = "Goal", half: int = 1, **more: Any) -> dict[str, Any]:
    """An annotation at half a second times `frame`."""
    return {"gameTime": f"{half} - 00:00", "label": label, "position": str(500 * frame)} | more


def unshown(frame: int, label: str = "Goal", half: int = 1) -> dict[str, Any]:
    return event(frame, label, half, visibility="not shown")


def spot(frame: int, confidence: Any, label: str = "Goal", half: Any = "1") -> dict[str, Any]:
    return {"label": label, "position": str(500 * frame), "half": half, "confidence": confidence}


def goal_scores(labels: Entries, predictions: Entries, metric: str = "at1") -> tuple[float, ...]:
    """Average precision of Goal for all, visible and not shown events."""
    block = average_map({MATCH: labels}, {MATCH: predictions}, metric)
    return tuple(block[f"a_mAP_per_class{subset}"]["Goal"] for subset in SUBSETS)


# One hit on screen, a false alarm nearer to the hidden event, one hit on that.
BOTH_KINDS = ([event(20), unshown(120)], [spot(21, 0.9), spot(300, 0.7), spot(120, 0.6)])


@pytest.mark.parametrize("metric", list(METRICS))
def test_one_class_by_hand(metric: str) -> None:
    labels, predictions = BOTH_KINDS
    block = average_map({MATCH: labels}, {MATCH: predictions}, metric)
    # Precision 1 up to recall 0.5 (six levels), 2/3 up to recall 1 (five levels).
    everything = (6 * 1 + 5 * 2 / 3) / 11
    assert block["a_mAP_per_class"]["Goal"] == pytest.approx(everything)
    assert block["a_mAP_per_class_visible"]["Goal"] == pytest.approx(1.0)
    assert block["a_mAP_per_class_unshown"]["Goal"] == pytest.approx(0.5)
    assert block["a_mAP"] == pytest.approx(everything / 17)
    assert block["a_mAP_visible"] == pytest.approx(1 / 17)
    # Over several tolerances the mean is corrected for four classes that are always shown.
    assert block["a_mAP_unshown"] == pytest.approx(0.5 / (17 if metric.startswith("at") else 13))
    assert block["a_mAP_per_class"]["Corner"] == 0.0
    assert list(block["a_mAP_per_class"]) == list(CLASSES)


def test_other_class_lists_do_not_get_the_correction_of_the_official_one() -> None:
    labels, predictions = BOTH_KINDS
    block = average_map({MATCH: labels}, {MATCH: predictions}, "tight", ("Goal", "Corner"))
    assert block["a_mAP_unshown"] == pytest.approx(0.25)
    assert block["a_mAP_per_class_unshown"] == {"Goal": pytest.approx(0.5), "Corner": 0.0}


def test_the_average_is_a_trapezoid_over_the_tolerances() -> None:
    # Three frames off: a miss at 1 and 2 seconds, a hit at 3, 4 and 5.
    assert goal_scores([event(20)], [spot(23, 0.5)], "at2")[0] == 0.0
    assert goal_scores([event(20)], [spot(23, 0.5)], "at3")[0] == pytest.approx(1.0)
    tight = goal_scores([event(20)], [spot(23, 0.5)], "tight")[0]
    assert tight == pytest.approx((0 + 0.5 + 1 + 1) / 4)


def test_events_take_their_best_spot_in_order_of_time() -> None:
    # The event at 20 takes the better spot at 22, so the one at 22 gets none.
    labels, predictions = [event(20), event(22)], [spot(18, 0.4), spot(22, 0.5)]
    assert goal_scores(labels, predictions, "at2")[0] == pytest.approx(6 / 11)


def test_of_equal_spots_an_event_takes_the_earliest() -> None:
    # The event at 20 takes the spot at 18, which leaves the one at 22 for the event at 22.
    labels, predictions = [event(20), event(22)], [spot(22, 0.5), spot(18, 0.5)]
    assert goal_scores(labels, predictions, "at2")[0] == pytest.approx(1.0)


def test_a_spot_is_taken_once_in_a_chain_of_events() -> None:
    labels = [event(frame) for frame in (20, 21, 22, 23)]
    # 20 takes 21, 21 takes 20, 22 takes 23, 23 finds 24 free.
    predictions = [spot(20, 0.6), spot(21, 0.9), spot(23, 0.8), spot(24, 0.7)]
    assert goal_scores(labels, predictions)[0] == pytest.approx(1.0)
    # Without 24 the last one goes away empty: recall 3/4 (levels 0 to 0.7).
    assert goal_scores(labels, predictions[:3])[0] == pytest.approx(8 / 11)


def test_of_events_on_adjacent_frames_the_later_owns_both() -> None:
    labels, predictions = [event(20), unshown(21)], [spot(20, 0.9), spot(21, 0.8)]
    # Two hits belong to the one hidden event: recall 2. The visible one owns no spot.
    assert goal_scores(labels, predictions) == pytest.approx((1.0, 0.0, 1.0))


def test_a_half_without_the_class_counts_as_not_shown() -> None:
    labels = [event(20), unshown(100)]
    predictions = [spot(20, 0.5), spot(100, 0.5), spot(20, 0.9, half="2")]
    # The false alarm in half 2 spoils the hidden events alone: precision 1/2.
    expected = (2 / 3, 1.0, 0.5)
    assert goal_scores(labels, predictions) == pytest.approx(expected)


def test_of_duplicates_the_last_counts() -> None:
    others = [spot(90, 0.5)]
    first, last = spot(20, 0.9), spot(20, 0.1)
    assert goal_scores([event(20)], [first, last, *others])[0] == pytest.approx(0.5)
    assert goal_scores([event(20)], [last, first, *others])[0] == pytest.approx(1.0)
    assert goal_scores([event(20)], [first, spot(20, -1), *others])[0] == 0.0
    assert goal_scores([unshown(20), event(20)], [first])[1:] == pytest.approx((1.0, 0.0))


@pytest.mark.parametrize(
    ("confidence", "detected"),
    [(0, True), ("0.0", True), (-0.001, False), ("nan", False), (float("nan"), False)]
    + [(None, False), (" 1e-3 ", True), (1.5, True), ("inf", True)],
)
def test_which_confidences_are_detections(confidence: Any, detected: bool) -> None:
    assert goal_scores([event(20)], [spot(20, confidence)])[0] == pytest.approx(float(detected))


def test_scores_between_two_of_the_200_thresholds_are_equal() -> None:
    # Both lie between 99/199 and 100/199.
    assert goal_scores([event(20)], [spot(20, 0.501), spot(90, 0.500)])[0] == pytest.approx(0.5)
    assert goal_scores([event(20)], [spot(20, 0.504), spot(90, 0.500)])[0] == pytest.approx(1.0)


def test_frames_past_the_end_are_clamped_and_negative_ones_wrap() -> None:
    late = event(15_000)
    assert goal_scores([late], [spot(99_999, 0.5)])[0] == pytest.approx(1.0)
    assert goal_scores([late], [spot(14_399, 0.5)])[0] == pytest.approx(1.0)
    assert goal_scores([late], [spot(-1, 0.5)])[0] == pytest.approx(1.0)
    # -400 ms is cut towards zero: frame 0.
    early = spot(0, 0.5) | {"position": "-400"}
    assert goal_scores([event(0)], [early])[0] == pytest.approx(1.0)


def test_unknown_labels_and_other_halves_are_skipped() -> None:
    labels = [event(20), event(20, half=3), event(20, "Dance")]
    predictions = [spot(20, 0.5), spot(20, 0.9, half="0"), spot(20, 0.9, "Dance"), spot(9, 1, None)]
    assert goal_scores(labels, predictions)[0] == pytest.approx(1.0)


def test_only_the_chosen_periods_count() -> None:
    labels = [event(20), event(20, half=2), event(20, half=3)]
    predictions = [spot(20, 0.5), spot(20, 0.5, half="3")]

    def goal(periods: tuple[int, ...]) -> float:
        block = average_map({MATCH: labels}, {MATCH: predictions}, "at1", periods=periods)
        return block["a_mAP_per_class"]["Goal"]

    assert goal((1,)) == goal((1, 3)) == goal((3,)) == pytest.approx(1.0)
    assert goal((2,)) == 0.0
    assert goal((1, 2)) == pytest.approx(6 / 11)  # recall 1/2
    assert goal((1, 2, 3)) == pytest.approx(7 / 11)  # recall 2/3


def test_the_half_is_never_taken_from_a_predictions_game_time() -> None:
    prediction = spot(20, 0.5, half="2") | {"gameTime": "1 - 0:10"}
    assert goal_scores([event(20)], [prediction])[0] == 0.0


def test_an_annotation_without_position_lies_at_its_game_time() -> None:
    label = {"gameTime": "1 - 01:10", "label": "Goal"}
    assert goal_scores([label], [spot(140, 0.5)])[0] == pytest.approx(1.0)


@pytest.mark.parametrize("position", [70_000, 70_000.0, "70000"])
def test_positions_are_whole_milliseconds_however_they_are_written(position: Any) -> None:
    assert goal_scores([event(1, position=position)], [spot(140, 0.5)])[0] == pytest.approx(1.0)


def test_half_and_dash_stand_with_or_without_blanks() -> None:
    for game_time in ("2-00:15", "2 - 00:15", "2 -102:10"):
        label = event(140, gameTime=game_time)
        assert goal_scores([label], [spot(140, 0.5, half="2")])[0] == pytest.approx(1.0)


def test_matches_are_pooled_and_unlabelled_ones_are_ignored() -> None:
    labels = {"a": [event(20)], "b": [event(20)]}
    predictions = {"b": [spot(20, 0.5)], "a": [spot(20, 0.9)], "c": [spot(20, 1.0)]}
    assert average_map(labels, predictions, "at1")["a_mAP_per_class"]["Goal"] == pytest.approx(1.0)
    predictions["a"] = []
    half = average_map(labels, predictions, "at1")["a_mAP_per_class"]["Goal"]
    assert half == pytest.approx(6 / 11)


def test_no_predictions_at_all_score_zero() -> None:
    assert average_map({MATCH: [event(20)]}, {MATCH: []}, "loose")["a_mAP"] == 0.0
    assert average_map({MATCH: []}, {MATCH: [spot(20, 0.9)]}, "loose")["a_mAP"] == 0.0


def test_several_metrics_at_once_are_the_single_ones() -> None:
    labels, predictions = {MATCH: BOTH_KINDS[0]}, {MATCH: BOTH_KINDS[1]}
    blocks = average_maps(labels, predictions)
    assert list(blocks) == list(METRICS)
    assert blocks == {name: average_map(labels, predictions, name) for name in METRICS}


@pytest.mark.parametrize(
    ("labels", "predictions", "metric", "complaint"),
    [
        ({}, {}, "tight", "no labelled match"),
        ({MATCH: []}, {"other": []}, "tight", f"match {MATCH}: has no predictions"),
        ({MATCH: []}, {MATCH: []}, "at6", "metric 'at6' is unknown"),
        ({MATCH: [{"label": "Goal"}]}, {MATCH: []}, "at1", 'annotation 1: it has no "gameTime"'),
        (
            {MATCH: [event(1, position="x")]},
            {MATCH: []},
            "at1",
            "annotation 1: its \"position\" is 'x'",
        ),
        ({MATCH: [event(1, gameTime=1)]}, {MATCH: []}, "at1", 'annotation 1: its "gameTime" is 1,'),
        ({MATCH: [event(1, gameTime="12:15")]}, {MATCH: []}, "at1", "is '12:15', not a half"),
        ({MATCH: [event(1, position=1.5)]}, {MATCH: []}, "at1", "is 1.5, not whole milliseconds"),
        ({MATCH: []}, {MATCH: [spot(1, 0.5), spot(1, "x")]}, "at1", "prediction 2: its"),
        ({MATCH: [event(-20_000)]}, {MATCH: []}, "at1", "more than two hours before"),
    ],
)
def test_mistakes_are_named(labels: Any, predictions: Any, metric: str, complaint: str) -> None:
    with pytest.raises(UserError) as caught:
        average_map(labels, predictions, metric)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)
