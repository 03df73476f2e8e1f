"""Events to targets."""

from pathlib import Path

import numpy as np
import pytest

from astra_jax.config.classes import CLASSES
from astra_jax.data.targets import TargetSpec, clip_targets, refine
from astra_jax.data.time import clip_starts, indices_at

GOLDEN = Path(__file__).parent / "golden" / "targets.npz"
NONE = 127
SPEC = TargetSpec(50, 2, 2, 3, num_classes=2)


def targets(events: list[tuple[int, int]], start: int = 0, spec: TargetSpec = SPEC):
    positions, classes = np.array(events, np.int64).reshape(-1, 2).T
    return clip_targets(positions, classes, start, spec)


def displacements(events: list[tuple[int, int]], column: int, start: int = 0) -> dict[int, int]:
    result = targets(events, start)
    assert not result.displacements[~result.displacement_mask].any()
    return {
        int(step): int(result.displacements[step, column])
        for step in np.flatnonzero(result.displacement_mask[:, column])
    }


def test_targets_equal_the_published_ones():
    golden = np.load(GOLDEN)
    spec = TargetSpec(50, 2, 2, 3, len(CLASSES))
    classes, displaced = [], []
    for half in (1, 2):
        of_half = golden["half"] == half
        positions = indices_at(golden["position_ms"][of_half], 2)
        actions = np.array([CLASSES.index(label) for label in golden["label"][of_half]])
        for start in clip_starts(int(golden["seconds"][half - 1]), 25, 50, 2):
            result = clip_targets(positions, actions, int(2 * start), spec)
            classes.append(result.class_targets)
            displaced.append(np.where(result.displacement_mask, result.displacements, NONE))
    np.testing.assert_array_equal(classes, golden["class_targets"])
    np.testing.assert_array_equal(displaced, golden["displacement_targets"])


def test_an_event_reaches_its_radii_both_ends_included():
    result = targets([(10, 1)])
    assert result.class_targets.dtype == result.displacements.dtype == np.float32
    assert np.flatnonzero(result.class_targets[:, 2]).tolist() == list(range(6, 15))
    assert np.flatnonzero(result.class_targets[:, 0] == 0).tolist() == list(range(6, 15))
    assert not result.class_targets[:, 1].any() and not result.displacement_mask[:, :2].any()
    assert displacements([(10, 1)], 2) == {10 + d: d for d in range(-6, 7)}


def test_of_two_events_of_a_class_the_nearer_counts_and_the_earlier_on_a_tie():
    expected = {step: step - 10 for step in range(4, 13)} | {
        step: step - 14 for step in range(13, 21)
    }
    assert expected[12] == 2  # as far from 10 as from 14
    for events in ([(10, 0), (14, 0)], [(14, 0), (10, 0)]):
        assert displacements(events, 1) == expected
        class_targets = targets(events).class_targets
        assert np.flatnonzero(class_targets[:, 1]).tolist() == list(range(6, 19))


def test_classes_do_not_disturb_one_another():
    assert displacements([(10, 0), (12, 1)], 1) == displacements([(10, 0)], 1)
    assert displacements([(10, 0), (12, 1)], 2) == displacements([(12, 1)], 2)


def test_an_event_just_outside_a_clip_does_not_reach_in():
    for outside in (49, 150):
        result = targets([(outside, 0)], start=50)
        assert result.class_targets[:, 0].all() and not result.displacement_mask.any()
    assert displacements([(50, 0)], 1, start=50) == {d: d for d in range(7)}
    assert displacements([(149, 0)], 1, start=50) == {99 + d: d for d in range(-6, 1)}


def test_an_event_in_the_last_second_of_a_half_is_kept():
    # The two clips of a half of 51 s start at 0 and 25: the published system drops from 50 s on.
    assert clip_starts(51, 25, 50, 2)[-1] == 25
    last = indices_at(np.array([50_900]), 2)
    assert last.tolist() == [101]
    assert targets([(101, 0)], start=50).class_targets[51, 1] == 1


def test_a_clip_without_events_is_background():
    result = targets([])
    assert result.class_targets[:, 0].all() and not result.class_targets[:, 1:].any()


def test_other_rates_and_radii_scale():
    spec = TargetSpec(10, 5, 0.5, 1, num_classes=1)
    assert spec.positions == 50
    result = targets([(20, 0)], spec=spec)
    assert np.flatnonzero(result.class_targets[:, 1]).tolist() == [18, 19, 20, 21, 22]
    assert np.flatnonzero(result.displacement_mask[:, 1]).tolist() == list(range(15, 26))


def test_positions_of_events_round_down():
    assert indices_at(np.array([0, 499, 500, 29_049, 29_500]), 2).tolist() == [0, 0, 1, 58, 59]


@pytest.mark.parametrize(
    ("seconds", "starts"),
    [
        (0.5, [0]),
        (1, [0]),
        (2, [0]),
        (26, [0]),
        (26.5, [0, 25]),
        (27, [0, 25]),
        (101, [0, 25, 50, 75]),
    ],
)
def test_clips_start_every_25_seconds_below_the_last_second(seconds, starts):
    assert clip_starts(seconds, 25, 50, 2) == starts


@pytest.mark.parametrize(("seconds", "last"), [(1, 0), (2, 0), (9, 0), (10, 8), (2705, 2704 - 8)])
def test_windows_start_every_8_seconds_and_the_last_is_kept(seconds, last):
    starts = clip_starts(seconds, 8, 50, 2)
    assert starts == list(range(0, max(seconds - 1, 1), 8)) and starts[-1] == last


def test_refining_undoes_the_displacement():
    result = targets([(10, 0), (14, 0)])
    steps = np.arange(100.0)[:, None] * np.ones(3)
    refined = refine(steps, result.displacements)[result.displacement_mask]
    assert set(refined) == {10, 14}
