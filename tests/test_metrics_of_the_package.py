"""The official metric scores random results as the SoccerNet package does, and faster."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from astra_jax.config.classes import CLASSES
from astra_jax.evaluation.frames import FRAMES_PER_SECOND, from_vectors, parse
from astra_jax.evaluation.metrics import METRICS, SUBSETS, average_map, score

MATCH = "league/season/match"
Entries = list[dict[str, Any]]


def random_match(rng: np.random.Generator, labels: list[str]) -> tuple[Entries, Entries]:
    """Annotations and predictions with everything that real and broken files hold."""
    span = int(rng.choice([40_000, 400_000, 2_700_000]))

    def milliseconds() -> int:
        if rng.random() < 0.1:
            return int(rng.choice([7_199_400, 7_199_900, 7_300_000, -20_000, 9_000_000]))
        return int(rng.integers(-3000, span))

    annotations: Entries = []
    for _ in range(int(rng.integers(0, 150))):
        half = int(rng.choice([1, 2, 3], p=[0.48, 0.48, 0.04]))
        time = milliseconds()
        entry = {"gameTime": f"{half} - 00:29", "label": rng.choice(labels), "position": str(time)}
        if rng.random() < 0.8:
            entry["visibility"] = str(
                rng.choice(["visible", "not shown", "odd"], p=[0.6, 0.3, 0.1])
            )
        annotations.append(entry)
        if rng.random() < 0.2:
            shift = int(rng.choice([0, 300, 500, 1000]))
            annotations.append(entry | {"position": time + shift})

    predictions: Entries = []
    for _ in range(int(rng.integers(0, 300))):
        half, time = int(rng.choice([0, 1, 2, 3], p=[0.02, 0.48, 0.48, 0.02])), milliseconds()
        label = rng.choice(labels)
        if annotations and rng.random() < 0.7:
            near = annotations[int(rng.integers(len(annotations)))]
            half, label = int(near["gameTime"][0]), near["label"]
            time = int(near["position"]) + int(rng.normal() * rng.choice([400, 1500, 8000]))
        odd = [-rng.random(), float("nan"), 0, 1.5, None, float("inf"), rng.integers(200) / 199]
        value = odd[rng.integers(7)] if rng.random() < 0.15 else rng.random()
        # A coarse grid of confidences makes ties.
        value = rng.integers(6) / 5 if rng.random() < 0.4 else value
        value = str(value) if value is not None and rng.random() < 0.5 else value
        entry = {"label": label, "position": str(time), "half": str(half), "confidence": value}
        predictions.append(entry)
        if rng.random() < 0.1:
            predictions.append(entry | {"confidence": rng.random(), "half": half})
    return annotations, predictions


def assert_equals_the_package(
    seed: int, metric: str, root: Path, frame_rate: int = FRAMES_PER_SECOND
) -> None:
    """Score the same random matches by both, through files on the package's side."""
    judge = pytest.importorskip("SoccerNet.Evaluation.ActionSpotting")
    from SoccerNet.Evaluation.utils import EVENT_DICTIONARY_V2

    rng = np.random.default_rng(seed)
    used = rng.choice([*CLASSES, "Dance"], size=int(rng.integers(1, 19)), replace=False).tolist()
    labels: dict[str, Entries] = {}
    predictions: dict[str, Entries] = {}
    for number in range(int(rng.integers(1, 4))):
        match = f"league/season/match {number}"
        labels[match], predictions[match] = random_match(rng, used)
        for kind, name, key, entries in (
            ("labels", "Labels-v2.json", "annotations", labels[match]),
            ("results", "results_spotting.json", "predictions", predictions[match]),
        ):
            file = root / kind / match / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps({key: entries}, default=float))
    expected = judge.evaluate(
        str(root / "labels"),
        str(root / "results"),
        dataset=None,
        EVENT_DICTIONARY=EVENT_DICTIONARY_V2,
        metric=metric,
        framerate=frame_rate,
    )
    ours = average_map(labels, predictions, metric, frame_rate=frame_rate)
    assert set(ours) == set(expected)
    for key, value in expected.items():
        mine = list(ours[key].values()) if "per_class" in key else ours[key]
        np.testing.assert_allclose(mine, value, rtol=0, atol=1e-9, err_msg=f"{metric} {key}")


@pytest.mark.parametrize("seed", range(2, 14))
def test_random_results_score_as_in_the_package(seed: int, tmp_path: Path) -> None:
    assert_equals_the_package(seed, list(METRICS)[seed % len(METRICS)], tmp_path)


@pytest.mark.parametrize(("frame_rate", "metric"), [(1, "at1"), (5, "at3")])
def test_other_frame_rates_score_as_in_the_package(
    frame_rate: int, metric: str, tmp_path: Path
) -> None:
    assert_equals_the_package(16, metric, tmp_path, frame_rate)


@pytest.mark.slow
def test_the_ball_tasks_metric_scores_as_in_the_package(tmp_path: Path) -> None:
    """Ten seconds: its vectors have 180,000 frames a half."""
    assert_equals_the_package(16, "at1", tmp_path, 25)


@pytest.mark.slow
@pytest.mark.parametrize("metric", list(METRICS))
@pytest.mark.parametrize("seed", range(100, 125))
def test_many_random_results_score_as_in_the_package(
    seed: int, metric: str, tmp_path: Path
) -> None:
    assert_equals_the_package(seed, metric, tmp_path)


def test_random_results_hold_what_they_are_meant_to() -> None:
    """The comparison above would say little if its scores were all near 0 or 1."""
    values = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        annotations, predictions = random_match(rng, list(CLASSES[:4]))
        block = average_map({MATCH: annotations}, {MATCH: predictions}, "loose", CLASSES[:4])
        values += [block[f"a_mAP{subset}"] for subset in SUBSETS]
    assert min(values) < 0.1 and max(values) > 0.3
    assert np.std(values) > 0.05


@pytest.fixture
def benchmark() -> ModuleType:
    path = Path(__file__).parents[1] / "benchmarks" / "metric_speed.py"
    spec = importlib.util.spec_from_file_location("metric_speed", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_packages_vectors_score_as_the_dictionaries_they_came_from(
    benchmark: ModuleType,
) -> None:
    pytest.importorskip("SoccerNet")
    labels, predictions = benchmark.simulate(2, 200)
    targets, detections, _ = benchmark.package_vectors(labels, predictions)
    assert score(from_vectors(targets, detections, CLASSES)) == score(
        parse(labels, predictions, CLASSES)
    )


@pytest.mark.slow
def test_the_metric_is_twenty_times_faster_than_the_package(benchmark: ModuleType) -> None:
    pytest.importorskip("SoccerNet")
    vectors = benchmark.package_vectors(*benchmark.simulate(20, 200))
    for metric in ("loose", "tight"):
        result = benchmark.compare(metric, vectors, 3)
        assert result["difference"] < 1e-9
        assert result["ratio"] >= 20, result
