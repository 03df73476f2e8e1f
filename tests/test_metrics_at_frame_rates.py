"""The metric at several frame rates: by hand, and by a slow direct reading of its definition."""

from typing import Any

import numpy as np
import pytest

from astra_jax.errors import UserError
from astra_jax.evaluation.late import beyond_grid, describe_late
from astra_jax.evaluation.metrics import METRICS, SUBSETS, average_map, average_maps

MATCH = "league/season/match"
CLASSES = ("PASS", "DRIVE", "SHOT")
Entries = list[dict[str, Any]]


def event(milliseconds: int, label: str = "PASS", half: int = 1, **more: Any) -> dict[str, Any]:
    return {"gameTime": f"{half} - 00:10", "label": label, "position": milliseconds} | more


def spot(
    milliseconds: int, score: float = 0.9, label: str = "PASS", half: int = 1
) -> dict[str, Any]:
    return event(milliseconds, label, half) | {"half": str(half), "confidence": score}


def at1(events: list[int], spots: list[int], **more: Any) -> float:
    labels, predictions = [event(ms) for ms in events], [spot(ms) for ms in spots]
    return average_map({MATCH: labels}, {MATCH: predictions}, "at1", ("PASS",), **more)["a_mAP"]


def test_the_ball_tasks_metric_is_at1_at_25_frames_a_second() -> None:
    # 0.98 s late, and one of two passes in half a second.
    assert at1([10_000], [10_980]) == at1([10_000, 10_400], [10_000]) == pytest.approx(1.0)
    assert at1([10_000], [10_980], frame_rate=25) == 0.0
    assert at1([10_000, 10_400], [10_000], frame_rate=25) == pytest.approx(6 / 11)


def test_in_reach_is_half_the_tolerance_in_whole_frames() -> None:
    # 12 of 25 frames are 0.48 s, 13 are 0.52.
    assert at1([10_000], [10_480], frame_rate=25) == pytest.approx(1.0)
    assert at1([10_000], [10_520], frame_rate=25) == 0.0
    assert at1([10_000], [11_000], frame_rate=1) == 0.0
    assert at1([10_000], [10_999], frame_rate=1) == pytest.approx(1.0)


def test_frames_are_cut_in_floats_as_in_the_package() -> None:
    # 100 * 0.29 is 28.999999999999996: frame 28, half a second from frame -22, not from -21.
    assert at1([290], [789], frame_rate=100) == pytest.approx(1.0)
    assert at1([290], [790], frame_rate=100) == 0.0


def test_a_grid_of_many_frames_keeps_halves_and_classes_apart() -> None:
    last = 7_199_990
    labels = {MATCH: [event(last), event(0, half=2), event(0, "DRIVE")]}
    wrong = {MATCH: [spot(0, half=2), spot(last, label="SHOT")]}
    block = average_map(labels, wrong, "loose", CLASSES, frame_rate=1000)
    assert block["a_mAP_per_class"]["PASS"] == pytest.approx(6 / 11)
    assert block["a_mAP_per_class"]["DRIVE"] == block["a_mAP_per_class"]["SHOT"] == 0.0


@pytest.mark.parametrize("frame_rate", [0, -2, 1001])
def test_a_frame_rate_out_of_range_is_an_error(frame_rate: int) -> None:
    with pytest.raises(UserError, match="whole number from 1 to 1000"):
        at1([0], [0], frame_rate=frame_rate)


# The definition, word by word


def slow_precisions(
    labels: dict[str, Entries],
    predictions: dict[str, Entries],
    seconds: int,
    label: str,
    frame_rate: int,
    periods: tuple[int, ...],
) -> list[float]:
    """Average precision of a class at a tolerance: all, visible and not shown."""
    last = 7200 * frame_rate - 1
    found: list[tuple[float, bool, bool]] = []  # score, hit, nearest event visible
    counts = [0, 0, 0]
    for match in labels:
        for half in periods:
            events, spots = {}, {}
            for entry in labels[match]:
                if entry["label"] == label and int(entry["gameTime"][0]) == half:
                    frame = min(int(frame_rate * (entry["position"] / 1000)), last)
                    events[frame] = entry.get("visibility") != "not shown"
            for entry in predictions[match]:
                if entry["label"] == label and int(entry["half"]) == half:
                    frame = min(int(frame_rate * (entry["position"] / 1000)), last)
                    spots[frame] = entry["confidence"]
            counts[0] += len(events)
            counts[1] += sum(events.values())
            counts[2] += len(events) - sum(events.values())
            free = set(spots)
            for frame in sorted(events):
                near = [at for at in sorted(free) if abs(at - frame) <= seconds * frame_rate / 2]
                if near:
                    free.remove(max(near, key=lambda at: spots[at]))
            ordered = sorted(events)
            for at, score in spots.items():
                owner = None
                for before, frame in zip([None, *ordered], ordered, strict=False):
                    if before is None or at >= (before + frame) // 2:
                        owner = frame
                found.append((score, at not in free, owner is not None and events[owner]))
    precisions = []
    for subset, total in enumerate(counts):
        points = []
        for threshold in np.linspace(0, 1, 200):
            hits = [
                hit
                for score, hit, shown in found
                if score >= threshold and subset in (0, 1 if shown else 2)
            ]
            points.append((sum(hits) / max(total, 1), sum(hits) / max(len(hits), 1)))
        levels = [level / 10 for level in range(11)]
        best = [max([p for r, p in points if r >= level], default=0.0) for level in levels]
        precisions.append(sum(best) / 11)
    return precisions


def random_entries(rng: np.random.Generator, number: int) -> tuple[Entries, Entries]:
    """Dense events of 40 seconds, and spots near some of them."""
    labels, predictions = [], []
    for _ in range(number):
        label, half = str(rng.choice(CLASSES)), int(rng.integers(1, 4))
        late = 7_190_000 if rng.random() < 0.2 else 0
        time = late + int(rng.integers(0, 40_000))
        labels.append(event(time, label, half))
        if rng.random() < 0.4:
            labels[-1]["visibility"] = "not shown"
        for _ in range(int(rng.integers(0, 3))):
            moved = max(0, time + int(rng.normal(0, 900)))
            predictions.append(spot(moved, int(rng.integers(0, 30)) / 29, label, half))
    return labels, predictions


@pytest.mark.parametrize("frame_rate", [1, 2, 25])
@pytest.mark.parametrize(("seed", "periods"), [(0, (1, 2)), (1, (1,)), (2, (1, 2, 3)), (3, (3, 1))])
def test_any_frame_rate_scores_as_the_definition_says(
    frame_rate: int, seed: int, periods: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(seed)
    labels, predictions = {}, {}
    for number in range(2):
        match = f"{MATCH} {number}"
        labels[match], predictions[match] = random_entries(rng, 60)
    metrics = ("at1", "at3", "at5")
    blocks = average_maps(labels, predictions, metrics, CLASSES, frame_rate, periods)
    for metric in metrics:
        for label in CLASSES:
            (seconds,) = METRICS[metric]
            slow = slow_precisions(labels, predictions, seconds, label, frame_rate, periods)
            ours = [blocks[metric][f"a_mAP_per_class{subset}"][label] for subset in SUBSETS]
            assert ours == pytest.approx(slow, abs=1e-12), f"{metric} {label}"
            assert 0 < slow[0] < 1


# Beyond the grid


def test_what_lies_beyond_two_hours_is_counted_by_match() -> None:
    labels = {"a": [event(7_199_999), event(7_200_000), event(9_000_000, half=3)], "b": []}
    predictions = {"a": [spot(0), spot(9_100_000, half=2)], "b": [spot(7_300_000)], "c": []}
    assert beyond_grid(labels, predictions) == {"a": (1, 1), "b": (0, 1)}
    assert beyond_grid(labels, {}, periods=(3,)) == {"a": (1, 0)}
    line = describe_late(beyond_grid(labels, predictions))
    assert "a (1 label(s), 1 spot(s)), b (0 label(s), 1 spot(s));" in line
    assert "120 minutes" in line and "one frame" in line and "rows_per_second" in line
    assert "c (1 label(s), 0 spot(s)) and 2 more;" in describe_late(dict.fromkeys("abcde", (1, 0)))


def test_what_lies_beyond_two_hours_is_on_one_frame_as_in_the_package() -> None:
    assert at1([7_300_000, 7_900_000], [9_100_000, 9_900_000]) == pytest.approx(1.0)
