"""The experiments of docs/experiments.md: what their arms differ in, and what they measure."""

import json
from pathlib import Path

import numpy as np
import paper_claims
import pytest
from helpers.matches import annotation, write_labels

from astra_jax.config.classes import CLASSES
from astra_jax.config.saved import differences
from astra_jax.formats.soccernet_results import write_results

MATCH = "league/season/A - B"


def spot(seconds, label, confidence, sigma):
    return {
        "gameTime": f"1 - 0:{int(seconds):02d}",
        "label": label,
        "position": str(round(1000 * seconds)),
        "half": "1",
        "confidence": str(confidence),
        "sigma_seconds": str(sigma),
    }


@pytest.mark.parametrize(
    ("experiment", "first", "second", "keys"),
    [
        ("mixup", "none", "balanced", ["mixup.kind"]),
        ("mixup", "plain", "balanced", ["mixup.alpha", "mixup.kind"]),
        ("uncertainty", "plain", "uncertain", ["model.uncertainty"]),
    ],
)
def test_the_arms_of_an_experiment_differ_in_its_claim_alone(experiment, first, second, keys):
    arms = [paper_claims.config_of(experiment, arm, 2, Path("root")) for arm in (first, second)]
    assert differences(*arms) == keys
    assert all(arm.seed == 2 and arm.simulation.test_matches == 40 for arm in arms)


def test_an_event_is_compared_with_the_most_confident_spot_near_it(tmp_path):
    rows = [annotation(1, 10_000), annotation(1, 30_000), annotation(1, 50_000)]
    (tmp_path / MATCH).mkdir(parents=True)
    write_labels(tmp_path / MATCH, rows)
    (tmp_path / "test.txt").write_text(f"{MATCH}\n")
    spots = [
        spot(10.5, "Goal", 0.2, 9.0),  # nearer, but not the most confident one
        spot(12.0, "Goal", 0.9, 0.3),
        spot(29.0, "Goal", 0.1, 0.4),
        spot(53.0, "Goal", 0.9, 0.5),  # too far from any
        spot(50.0, "Foul", 0.9, 0.5),  # of another class
    ]
    write_results(tmp_path / "results", {MATCH: spots})
    found, predicted, real = paper_claims.spreads(tmp_path / "results", tmp_path)
    goal = CLASSES.index("Goal")
    assert found[goal] == 2 and found.sum() == 2
    assert predicted[goal] == pytest.approx(np.sqrt((0.3**2 + 0.4**2) / 2))
    assert real[goal] == pytest.approx(np.sqrt((2.0**2 + 1.0**2) / 2))
    assert np.isnan(np.delete(predicted, goal)).all()


def test_against_the_truth_a_spot_at_the_true_time_is_right(tmp_path):
    events = [
        {"half": 1, "label": "Goal", "true_ms": 10_000.2, "annotated_ms": 14_000, "visible": True}
    ]
    (tmp_path / MATCH).mkdir(parents=True)
    (tmp_path / MATCH / "true_events.json").write_text(json.dumps({"events": events}))
    (tmp_path / "test.txt").write_text(f"{MATCH}\n")
    write_results(tmp_path / "results", {MATCH: [spot(10.0, "Goal", 0.9, 0.3)]})
    scores = paper_claims.tight_aps_against_truth(tmp_path / "results", tmp_path)
    assert scores[CLASSES.index("Goal")] == 100


def test_a_table_has_means_spreads_and_paired_differences(capsys):
    first = [np.full(17, 10.0), np.full(17, 20.0)]
    second = [np.full(17, 12.0), np.full(17, 26.0)]
    paper_claims.print_scores({"none": first, "plain": second}, {"all": list(CLASSES)})
    assert capsys.readouterr().out.splitlines()[-1] == (
        "| all | 15.0 ± 7.1 (10.0, 20.0) | 19.0 ± 9.9 (12.0, 26.0) | +4.0 ± 2.8 (+2.0, +6.0) |"
    )
