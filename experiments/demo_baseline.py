"""Two yardsticks for the demo: a tuned logistic regression, and an oracle that knows the patterns.

Run:  python experiments/demo_baseline.py --root DIR [--split test] [--skip baseline | oracle]

DIR holds simulated matches, as the demo leaves them under its data root; an empty or missing
folder is filled with the demo's. The baseline sees the rows (embeddings and the second's mean
log-mel) within +-2 s of each of the two positions a second. Its target radius, regularisation and
class weights are chosen on the validation split. Both share the demo's suppression and metric.
"""

import argparse
import itertools
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from demo_oracle import Oracle
from jaxtyping import Bool, Float
from sklearn.linear_model import LogisticRegression
from tqdm import tqdm

from astra_jax.config.classes import CLASSES
from astra_jax.config.defaults import paper
from astra_jax.config.simulated import (
    FRAMES_PER_SECOND,
    SIMULATED_SPLITS,
    simulated_data,
    simulated_matches,
)
from astra_jax.data.audio import power_to_db
from astra_jax.data.halves import Half
from astra_jax.data.index import index_halves
from astra_jax.data.simulation.writer import (
    SPEC_FILE,
    SimulationSpec,
    read_spec,
    write_matches,
)
from astra_jax.data.sources import DataSpec
from astra_jax.data.splits import load_split
from astra_jax.data.time import indices_at
from astra_jax.errors import UserError
from astra_jax.evaluation.metrics import average_maps
from astra_jax.formats.soccernet_labels import read_raw_annotations
from astra_jax.spotting.matches import spots_to_predictions
from astra_jax.spotting.suppression import SuppressionSpec, suppress

POSITIONS_PER_SECOND = 2
REACH_ROWS = 2
# Tuned on a part of the training matches; the best setting is then fitted on all.
TUNING_MATCHES = 10
RADII = (0, 1, 2)
PENALTIES = (1e-3, 1e-2)
WEIGHTS = (None, "balanced")

Scores = Float[np.ndarray, "position class"]


@dataclass(frozen=True)
class Observed:
    """A half and what is seen and heard in each of its seconds."""

    half: Half
    rows: Float[np.ndarray, "row column"]

    def targets(self, radius: int) -> Bool[np.ndarray, "position class"]:
        """Which classes have an event within `radius` positions."""
        positions = POSITIONS_PER_SECOND * len(self.rows)
        marks = np.zeros((positions, len(CLASSES)), bool)
        events = self.half.events
        at = indices_at(events.milliseconds, POSITIONS_PER_SECOND)
        for offset in range(-radius, radius + 1):
            marks[np.clip(at + offset, 0, positions - 1), events.class_ids] = True
        return marks

    def windows(self, phase: int) -> Float[np.ndarray, "row column"]:
        """The five rows around each row's first (phase 0) or second position, side by side."""
        offsets = np.arange(-REACH_ROWS, REACH_ROWS + 1) + phase
        index = np.arange(len(self.rows))[:, None] + offsets
        return self.rows[np.clip(index, 0, len(self.rows) - 1)].reshape(len(self.rows), -1)


class Baseline:
    """One logistic regression a class and phase of the second."""

    def __init__(self, radius: int, penalty: float, weight: str | None) -> None:
        self.radius, self.penalty, self.weight = radius, penalty, weight

    def fit(self, training: Sequence[Observed]) -> "Baseline":
        """Fits all classes on the halves."""
        rows = np.concatenate([o.rows for o in training])
        self.mean, self.deviation = rows.mean(0), rows.std(0)
        targets = np.concatenate([o.targets(self.radius) for o in training])
        self.models = []
        for phase in range(POSITIONS_PER_SECOND):
            windows = np.concatenate([self._standard(o).windows(phase) for o in training])
            self.models.append(
                [
                    LogisticRegression(C=self.penalty, class_weight=self.weight, max_iter=60).fit(
                        windows, column
                    )
                    for column in targets[phase::POSITIONS_PER_SECOND].T
                ]
            )
        return self

    def scores(self, observed: Observed) -> Scores:
        """The probability of each class at each position."""
        dense = np.empty((POSITIONS_PER_SECOND * len(observed.rows), len(CLASSES)))
        standard = self._standard(observed)
        for phase, models in enumerate(self.models):
            windows = standard.windows(phase)
            for column, model in enumerate(models):
                dense[phase::POSITIONS_PER_SECOND, column] = model.predict_proba(windows)[:, 1]
        return dense

    def _standard(self, observed: Observed) -> Observed:
        return Observed(observed.half, (observed.rows - self.mean) / self.deviation)


def data_spec(root: Path) -> DataSpec:
    """Where simulated matches under `root` have their files."""
    data = paper().data
    with data.ignore_type():
        data.update(simulated_data())
        data.root = str(root)
    return DataSpec.from_config(data.to_dict())


def observe(root: Path, split: str) -> list[Observed]:
    """All halves of a split."""
    observed = []
    for half in index_halves(data_spec(root), load_split(str(root / f"{split}.txt"))):
        seconds = int(half.seconds)
        rows, _ = half.read_source(0, 0, seconds)
        frames, _ = half.read_mel_power(0, seconds * FRAMES_PER_SECOND)
        sound = power_to_db(frames).reshape(seconds, FRAMES_PER_SECOND, -1).mean(1)
        observed.append(Observed(half, np.concatenate([rows, sound], axis=1)))
    return observed


def evaluate(
    root: Path, observed: Sequence[Observed], score: Callable[[Observed], Scores]
) -> dict[str, float]:
    """Tight and loose Average-mAP of dense scores after the demo's suppression."""
    predictions: dict[str, list[dict[str, str]]] = {o.half.match: [] for o in observed}
    for each in observed:
        spots = suppress(score(each), SuppressionSpec(positions_per_second=POSITIONS_PER_SECOND))
        predictions[each.half.match] += spots_to_predictions(
            spots, each.half.half, CLASSES, POSITIONS_PER_SECOND
        )
    labels = {match: read_raw_annotations(root / match / "Labels-v2.json") for match in predictions}
    blocks = average_maps(labels, predictions, ("tight", "loose"))
    return {name: float(block["a_mAP"]) for name, block in blocks.items()}


def tuned_baseline(root: Path, training: Sequence[Observed]) -> Baseline:
    """The baseline with the setting that scores best (tight) on the validation split."""
    part, validation = training[: 2 * TUNING_MATCHES], observe(root, "valid")
    settings = list(itertools.product(RADII, PENALTIES, WEIGHTS))
    scored = []
    for setting in tqdm(settings, "tuning the baseline", leave=False):
        candidate = Baseline(*setting).fit(part)
        scored.append(evaluate(root, validation, candidate.scores)["tight"])
    best = settings[int(np.argmax(scored))]
    print(
        f"baseline: radius {best[0]} positions, C {best[1]}, class weights {best[2]} "
        f"(of {len(settings)} settings: {100 * min(scored):.1f} to {100 * max(scored):.1f} tight "
        f"on valid)"
    )
    return Baseline(*best).fit(training)


def main() -> None:
    """Prints both yardsticks."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--root", type=Path, required=True, help="folder of the simulated matches")
    parser.add_argument("--split", default="test", choices=SIMULATED_SPLITS)
    parser.add_argument("--skip", choices=("baseline", "oracle"))
    args = parser.parse_args()
    if not (args.root / SPEC_FILE).exists():
        write_matches(args.root, SimulationSpec.from_config(simulated_matches().to_dict()))
    spec = read_spec(args.root)
    judged = observe(args.root, args.split)
    if args.skip != "baseline":
        start = time.perf_counter()
        baseline = tuned_baseline(args.root, observe(args.root, "train"))
        _report("baseline", evaluate(args.root, judged, baseline.scores), start)
    if args.skip != "oracle":
        start = time.perf_counter()
        oracle = Oracle.build(spec)
        _report("oracle", evaluate(args.root, judged, lambda o: oracle.scores(o.rows)), start)


def _report(name: str, scores: dict[str, float], start: float) -> None:
    figures = ", ".join(f"{metric} {100 * value:.1f}" for metric, value in scores.items())
    print(f"{name}: Average-mAP {figures} ({time.perf_counter() - start:.0f} s)", flush=True)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(str(error))
