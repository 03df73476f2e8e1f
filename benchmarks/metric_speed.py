"""Times the official metric against the SoccerNet package, from the same parsed vectors.

    python benchmarks/metric_speed.py [--matches 100] [--spots 200] [--repeats 5]

Simulates matches with the measured rates of SoccerNet-v2's events (some 107 a half) and spots
around and beside them, fills the package's vectors (14,400 frames by 17 classes, one pair a
half) and times both on them, median of the repeats. Needs the `test` extra. Ours is timed from
the vectors too, finding the few filled frames in them included, and once more from dictionaries
as they lie in the files.
"""

import argparse
import contextlib
import io
import json
import statistics
import time
from collections.abc import Callable, Sequence
from importlib import resources
from typing import Any

import numpy as np
from jaxtyping import Float

from astra_jax.config.classes import CLASSES
from astra_jax.evaluation.frames import FRAMES_PER_SECOND, from_vectors
from astra_jax.evaluation.metrics import METRICS, SUBSETS, average_maps, score

HALF_MS = 45 * 60 * 1000
SHARE_NEAR_EVENTS = 0.5
NEAR_SIGMA_MS = 2000

Labels = dict[str, list[dict[str, str]]]
Vectors = list[Float[np.ndarray, "frame class"]]


def simulate(matches: int, spots_per_half: int, seed: int = 0) -> tuple[Labels, Labels]:
    """Annotations and predictions of `matches` matches, both halves of each."""
    folder = resources.files("astra_jax.data.simulation")
    text = folder.joinpath("soccernet_statistics.json").read_text()
    statistics_ = json.loads(text)
    rates = np.array([statistics_["events_per_half"][name] for name in CLASSES])
    unshown = np.array([statistics_["not_shown_rate"][name] for name in CLASSES])
    rng = np.random.default_rng(seed)
    labels: Labels = {}
    predictions: Labels = {}
    for number in range(matches):
        match = f"league/season/match {number}"
        labels[match], predictions[match] = [], []
        for half in ("1", "2"):
            classes = np.repeat(np.arange(len(CLASSES)), rng.poisson(rates))
            times = rng.integers(0, HALF_MS, len(classes))
            labels[match] += [
                {
                    "gameTime": f"{half} - {time // 60_000:02d}:{time // 1000 % 60:02d}",
                    "label": CLASSES[action],
                    "position": str(time),
                    "visibility": "not shown" if rng.random() < unshown[action] else "visible",
                }
                for action, time in zip(classes, times, strict=True)
            ]
            predictions[match] += _spots(rng, half, classes, times, spots_per_half)
    return labels, predictions


def _spots(
    rng: np.random.Generator, half: str, classes: np.ndarray, times: np.ndarray, count: int
) -> list[dict[str, str]]:
    """Spots of one half: a share near events of their class, with higher confidences."""
    near = rng.random(count) < SHARE_NEAR_EVENTS
    source = rng.integers(0, len(classes), count)
    action = np.where(near, classes[source], rng.integers(0, len(CLASSES), count))
    jitter = rng.normal(0, NEAR_SIGMA_MS, count)
    time = np.where(near, times[source] + jitter, rng.uniform(0, HALF_MS, count))
    confidence = rng.beta(np.where(near, 2.0, 1.0), 3.0)
    return [
        {
            "label": CLASSES[action[k]],
            "position": str(int(np.clip(time[k], 0, HALF_MS))),
            "half": half,
            "confidence": str(confidence[k]),
        }
        for k in range(count)
    ]


def package_vectors(labels: Labels, predictions: Labels) -> tuple[Vectors, Vectors, Vectors]:
    """The package's targets, detections and closest events, two halves a match."""
    from SoccerNet.Evaluation.ActionSpotting import label2vector, predictions2vector
    from SoccerNet.Evaluation.utils import EVENT_DICTIONARY_V2

    targets: Vectors = []
    detections: Vectors = []
    for match, annotations in labels.items():
        content: dict[str, Any] = {"annotations": annotations}
        targets += label2vector(content, EVENT_DICTIONARY=EVENT_DICTIONARY_V2)
        content = {"predictions": predictions[match]}
        detections += predictions2vector(content, EVENT_DICTIONARY=EVENT_DICTIONARY_V2)
    return targets, detections, [_closest(target) for target in targets]


def _closest(target: Float[np.ndarray, "frame class"]) -> Float[np.ndarray, "frame class"]:
    """Value of the event of each class that owns a frame; -1 without one (see frames.py)."""
    closest = np.full(target.shape, -1.0)
    for action in range(target.shape[1]):
        frames = np.flatnonzero(target[:, action])
        starts = np.append((frames[1:] + frames[:-1]) // 2, len(target))
        begin = 0
        for frame, end in zip(frames, starts, strict=False):
            closest[begin:end, action] = target[frame, action]
            begin = end
    return closest


def median_seconds(function: Callable[[], object], repeats: int) -> float:
    """Median wall-clock time of `repeats` calls."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def compare(
    metric: str, vectors: tuple[Vectors, Vectors, Vectors], repeats: int
) -> dict[str, float]:
    """Median seconds of both on one metric, and their largest difference in any value."""
    from SoccerNet.Evaluation.ActionSpotting import average_mAP

    targets, detections, closests = vectors
    answers: dict[str, Any] = {}

    def package() -> None:
        # Its progress bar writes to stderr.
        with contextlib.redirect_stderr(io.StringIO()):
            answers["package"] = average_mAP(
                targets, detections, closests, FRAMES_PER_SECOND, np.array(METRICS[metric])
            )

    def ours() -> None:
        events = from_vectors(targets, detections, CLASSES)
        answers["ours"] = score(events, (metric,))[metric]

    seconds = {
        "package": median_seconds(package, repeats),
        "ours": median_seconds(ours, repeats),
    }
    block = answers["ours"]
    values = [
        value
        for subset in SUBSETS
        for value in (block[f"a_mAP{subset}"], list(block[f"a_mAP_per_class{subset}"].values()))
    ]
    difference = max(
        float(np.abs(np.asarray(mine) - np.asarray(theirs)).max())
        for mine, theirs in zip(values, answers["package"], strict=True)
    )
    return {**seconds, "ratio": seconds["package"] / seconds["ours"], "difference": difference}


def main(argv: Sequence[str] | None = None) -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--matches", type=int, default=100)
    parser.add_argument("--spots", type=int, default=200, help="predictions a half")
    parser.add_argument("--repeats", type=int, default=5, help="runs of which the median counts")
    parser.add_argument("--metric", nargs="+", default=["loose", "tight"], choices=list(METRICS))
    args = parser.parse_args(argv)
    labels, predictions = simulate(args.matches, args.spots)
    events = sum(map(len, labels.values())) / (2 * args.matches)
    print(f"{args.matches} matches, {events:.0f} events and {args.spots} predictions a half")
    vectors = package_vectors(labels, predictions)
    for metric in args.metric:
        result = compare(metric, vectors, args.repeats)
        print(
            f"{metric:>6}: package {result['package']:.3f} s, ours {result['ours']:.3f} s, "
            f"{result['ratio']:.0f} times faster, largest difference {result['difference']:.1e}"
        )
    seconds = median_seconds(lambda: average_maps(labels, predictions), args.repeats)
    print(f"all of {', '.join(METRICS)} from dictionaries, parsing included: {seconds:.3f} s")


if __name__ == "__main__":
    main()
