"""Two claims of the paper on simulated matches, where the truth is known: docs/experiments.md.

Run:  python experiments/paper_claims.py --out DIR [--experiments mixup uncertainty] [--seeds 1 2 3]

mixup:        balanced mixup against plain and none (section 4.4, figure 4): do rare classes gain?
uncertainty:  a displacement with variance against a plain one (figure 5): do classes gain whose
              annotators are imprecise, and does the model know which they are?

Trains an arm after the other, each with every seed, and prints the tables, those of --experiments.
Runs lie in DIR and resume; the arms of a seed start from the same parameters (but for the head that
differs) and meet the same clips in the same order. Two commands with different seeds may run side
by side once DIR/matches is written; a third with all seeds prints the tables.
"""

import argparse
import json
from collections import Counter
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from ml_collections import ConfigDict

from astra_jax import runs
from astra_jax.config.classes import CLASSES
from astra_jax.config.load import load_config
from astra_jax.config.simulated import simulated_matches
from astra_jax.data.simulation.writer import (
    JITTERED_CLASSES,
    SimulationSpec,
    read_spec,
    write_matches,
)
from astra_jax.data.splits import load_split
from astra_jax.evaluation.metrics import average_map
from astra_jax.formats.soccernet_labels import parse_annotation, read_raw_annotations
from astra_jax.formats.soccernet_results import parse_prediction, read_predictions

ABLATIONS = Path(__file__).parents[1] / "configs" / "ablations.py"

MATCHES = {"rarity_exponent": 0.5, "test_matches": 40}
"""What is not the demo's: rarer rare classes, and enough matches to score them."""

# 20 matches again and again: where a network can overfit, as it does in the paper's 50 epochs.
FEW_MATCHES = {
    "data.splits.train": "train.txt[:20]",
    "training.epochs": 42,
    "training.validate_every_epochs": 14,
}
EXPERIMENTS: dict[str, dict[str, tuple[str, dict[str, Any]]]] = {
    "mixup": {
        "none": ("m2", FEW_MATCHES),
        "plain": ("m3", FEW_MATCHES),
        "balanced": ("m4", FEW_MATCHES),
    },
    "uncertainty": {
        "plain": ("m2", {}),
        "uncertain": ("m2", {"model.uncertainty": True}),
    },
}
"""The arms of each experiment: a model of Table 2 at the demo's size, and what is changed of it."""

NEAR_SECONDS = 2.5
"""How far from an event its spot may lie: the tightest tolerances, delta/2 of delta = 5."""
ROUNDING_SECONDS = 0.5 / np.sqrt(12)
"""Standard deviation of what an event loses by lying on one of two positions a second."""

Values = Float[np.ndarray, "class"]


def config_of(experiment: str, arm: str, seed: int, root: Path) -> ConfigDict:
    """The config of one run."""
    model, changes = EXPERIMENTS[experiment][arm]
    config = load_config(f"{ABLATIONS}:{model},demo")
    config.simulation.update(MATCHES)
    config.seed, config.data.root = seed, str(root)
    config.update_from_flattened_dict(changes)
    return config


def predict(experiment: str, arm: str, seed: int, out: Path) -> Path:
    """Trains and evaluates one run, or finds it; the folder of its results on the test matches."""
    workdir = out / experiment / arm / f"seed_{seed}"
    results = workdir / "test"
    if not (results / "metrics.json").is_file():
        runs.train(config_of(experiment, arm, seed, out / "matches"), workdir)
        runs.evaluate(workdir, "test", results)
    return results


def tight_aps(results: Path) -> Values:
    """Tight Average-AP of each class, in percent, against the annotations."""
    block = json.loads((results / "metrics.json").read_text())["tight"]
    return 100 * np.array([block["a_mAP_per_class"][label] for label in CLASSES])


def tight_aps_against_truth(results: Path, root: Path) -> Values:
    """The same against the times at which the events happened."""
    matches = load_split("test.txt", root)
    truth = {}
    for match in matches:
        events = json.loads((root / match / "true_events.json").read_text())["events"]
        truth[match] = [
            {
                "gameTime": f"{event['half']} - 00:00",  # of which the metric reads the half
                "label": event["label"],
                "position": str(round(event["true_ms"])),
                "visibility": "visible" if event["visible"] else "not shown",
            }
            for event in events
        ]
    block = average_map(truth, read_predictions(results / "results.zip", matches), "tight")
    return 100 * np.array([block["a_mAP_per_class"][label] for label in CLASSES])


def spreads(results: Path, root: Path) -> tuple[Values, Values, Values]:
    """How far spots lie from their events, a class: found events, predicted and real sd, seconds.

    An event's spot is the most confident one of its class that is near. The predicted standard
    deviation is the root of the mean variance of these spots, the real one that of the mean squared
    distance to the annotation.
    """
    matches = load_split("test.txt", root)
    predictions = read_predictions(results / "results.zip", matches)
    variances: dict[str, list[float]] = {label: [] for label in CLASSES}
    squares: dict[str, list[float]] = {label: [] for label in CLASSES}
    for match in matches:
        spots: dict[tuple[int, str], list[tuple[float, float, float]]] = {}
        for raw in predictions[match]:
            spot = parse_prediction(raw)
            found = spot.milliseconds / 1000, spot.confidence, float(raw["sigma_seconds"])
            spots.setdefault((spot.half, spot.label), []).append(found)
        for raw in read_raw_annotations(root / match / "Labels-v2.json"):
            event = parse_annotation(raw)
            label, second = event.label, event.milliseconds / 1000
            of_class = spots.get((event.half, label), [])
            near = [spot for spot in of_class if abs(spot[0] - second) <= NEAR_SECONDS]
            if near:
                time, _, sigma = max(near, key=lambda spot: spot[1])
                variances[label].append(sigma**2)
                squares[label].append((time - second) ** 2)

    def roots(values: dict[str, list[float]]) -> Values:
        return np.array([np.sqrt(np.mean(of)) if of else np.nan for of in values.values()])

    return np.array([len(of) for of in squares.values()]), roots(variances), roots(squares)


def training_events(root: Path) -> Counter[str]:
    """Annotated events of each class in the matches that the mixup experiment trains on."""
    matches = load_split(FEW_MATCHES["data.splits.train"], root)
    files = [root / match / "Labels-v2.json" for match in matches]
    return Counter(event["label"] for file in files for event in read_raw_annotations(file))


def cell(values: Float[np.ndarray, "seed"], signed: bool = False) -> str:
    """Mean, standard deviation (n - 1) and each."""
    sign = "+" if signed else ""
    each = ", ".join(f"{value:{sign}.1f}" for value in values)
    spread = f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    return f"{np.mean(values):{sign}.1f}{spread} ({each})"


def print_scores(scores: dict[str, list[Values]], groups: dict[str, list[str]]) -> None:
    """A Markdown table: a row a group of classes, a column an arm or a difference of two."""
    pairs = list(combinations(scores, 2))
    names = [*scores, *(f"{second} - {first}" for first, second in pairs)]
    print(f"\n| tight Average-AP | {' | '.join(names)} |\n|{' --- |' * (len(names) + 1)}")
    for name, labels in groups.items():
        where = [CLASSES.index(label) for label in labels]
        means = {arm: np.array([v[where].mean() for v in of]) for arm, of in scores.items()}
        cells = [cell(values) for values in means.values()]
        cells += [cell(means[second] - means[first], signed=True) for first, second in pairs]
        print(f"| {name} | {' | '.join(cells)} |")


def report_mixup(found: dict[str, list[Path]], root: Path) -> None:
    """Head, middle and tail classes by their number of training events, and every class."""
    counts = training_events(root)
    order = sorted(CLASSES, key=lambda label: -counts[label])
    groups = {"all": order, "head": order[:6], "middle": order[6:11], "tail": order[11:]}
    scores = {arm: [tight_aps(path) for path in paths] for arm, paths in found.items()}
    for name, labels in groups.items():
        print(f"{name}: {', '.join(f'{label} {counts[label]}' for label in labels)}")
    print_scores(scores, groups)
    print_scores(scores, {f"{label} ({counts[label]})": [label] for label in order})


def report_uncertainty(found: dict[str, list[Path]], root: Path) -> None:
    """Jittered classes and others; predicted and true standard deviation of each class."""
    steady = [label for label in CLASSES if label not in JITTERED_CLASSES]
    groups = {"all": list(CLASSES), "jittered": list(JITTERED_CLASSES), "others": steady}
    against: dict[str, Callable[[Path], Values]] = {
        "annotations": tight_aps,
        "the truth": lambda path: tight_aps_against_truth(path, root),
    }
    for name, score in against.items():
        scores = {arm: [score(path) for path in paths] for arm, paths in found.items()}
        print(f"\nagainst {name}:")
        print_scores(scores, groups)
    jitter = read_spec(root).jitters
    measured = [spreads(path, root) for path in found["uncertain"]]
    # 0.3 e^2 / v + 0.7 ln v has its minimum at v = 0.3 / 0.7 e^2.
    optimum = np.sqrt(0.3 / 0.7 * (jitter**2 + ROUNDING_SECONDS**2))
    print("\n| class | annotators' sd, s | loss's optimum, s | predicted, s | error, s | found |")
    print("|" + " --- |" * 6)
    for k in np.argsort(-jitter, kind="stable"):
        predicted, error = (" / ".join(f"{s[i][k]:.2f}" for s in measured) for i in (1, 2))
        events = " / ".join(f"{s[0][k]:.0f}" for s in measured)
        row = (CLASSES[k], f"{jitter[k]:.2f}", f"{optimum[k]:.2f}", predicted, error, events)
        print(f"| {' | '.join(row)} |")
    for name, truth in (
        ("annotators'", [jitter] * len(measured)),
        ("real", [s[2] for s in measured]),
    ):
        values = [correlation(s[1], other) for s, other in zip(measured, truth, strict=True)]
        print(f"correlation of predicted with {name} sd: {', '.join(f'{v:.2f}' for v in values)}")


def correlation(first: Values, second: Values) -> float:
    """Pearson's, over the classes of which both are known."""
    known = np.isfinite(first) & np.isfinite(second)
    return float(np.corrcoef(first[known], second[known])[0, 1])


REPORTS = {"mixup": report_mixup, "uncertainty": report_uncertainty}


def main() -> None:
    """Trains what is not trained yet, and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True, type=Path, help="folder of matches and runs")
    parser.add_argument("--experiments", nargs="+", default=list(REPORTS), choices=list(REPORTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    args = parser.parse_args()
    root = args.out / "matches"
    spec = SimulationSpec.from_config(simulated_matches().to_dict() | MATCHES)
    write_matches(root, spec)
    for experiment in args.experiments:
        found: dict[str, list[Path]] = {arm: [] for arm in EXPERIMENTS[experiment]}
        for seed in args.seeds:
            for arm, paths in found.items():
                paths.append(predict(experiment, arm, seed, args.out))
        print(f"\n## {experiment}, seeds {', '.join(map(str, args.seeds))}\n")
        REPORTS[experiment](found, root)


if __name__ == "__main__":
    main()
