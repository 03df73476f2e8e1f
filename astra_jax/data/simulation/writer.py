"""Simulated matches in the SoccerNet layout, so that training needs no downloaded data."""

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from tqdm import tqdm

from astra_jax.config.classes import CLASSES
from astra_jax.config.simulated import SIMULATED_SPLITS
from astra_jax.data.simulation.events import Chain, HalfEvents, build_chain, draw_events
from astra_jax.data.simulation.signals import (
    Patterns,
    SignalSpec,
    draw_patterns,
    embeddings,
    mel_power,
)
from astra_jax.data.simulation.statistics import boosted_rates, measured_statistics
from astra_jax.errors import UserError

JITTERED_CLASSES: tuple[str, ...] = ("Kick-off", "Clearance", "Offside")
"""Classes whose annotators are less precise about when."""
SPEC_FILE = "simulation.json"
"""What the matches beside it were written with."""

# Raised when the same spec yields other matches than before, so that old folders are noticed.
_VERSION = 8


@dataclass(frozen=True)
class SimulationSpec:
    """What decides a simulated data set, to the byte.

    rarity_exponent: class frequencies are the measured ones to this power (1: as measured).
    density: events a second, relative to the measured matches.
    jitter_seconds: standard deviation of annotation times; of `JITTERED_CLASSES`
    jittered_seconds.
    """

    seed: int
    train_matches: int
    valid_matches: int
    test_matches: int
    half_seconds: int
    rarity_exponent: float
    density: float
    jitter_seconds: float
    jittered_seconds: float
    signals: SignalSpec

    @classmethod
    def from_config(cls, simulation: Mapping[str, Any]) -> "SimulationSpec":
        """Reads the section `simulation`; a UserError names a key that is unknown or missing."""
        values = _check_fields(cls, dict(simulation), "simulation")
        signals = _check_fields(SignalSpec, values.pop("signals"), "simulation.signals")
        return cls(**values, signals=SignalSpec(**signals))

    @property
    def jitters(self) -> Float[np.ndarray, "class"]:
        """Each class's standard deviation of annotation times, in seconds."""
        return np.array(
            [
                self.jittered_seconds if label in JITTERED_CLASSES else self.jitter_seconds
                for label in CLASSES
            ]
        )

    @property
    def rates(self) -> Float[np.ndarray, "class"]:
        """Each class's expected events a second."""
        return boosted_rates(measured_statistics(), self.rarity_exponent, self.density)


def world(spec: SimulationSpec) -> tuple[Chain, Patterns]:
    """The event chain and the patterns that all matches of a spec share."""
    chain = build_chain(measured_statistics(), spec.rates, spec.half_seconds)
    return chain, draw_patterns(spec.signals, np.random.default_rng([spec.seed]))


def write_matches(root: Path, spec: SimulationSpec) -> None:
    """Write the spec's matches and split lists under `root`, or find them there.

    A match is a function of the spec without its numbers of matches: more matches leave the
    others as they are. `simulation.json` appears last; a run cut off before is done again.
    Raises UserError where the folder holds matches of another spec, or something else.
    """
    content = {"version": _VERSION, **dataclasses.asdict(spec)}
    finished, begun = root / SPEC_FILE, root / f"{SPEC_FILE}.partial"
    if finished.exists():
        _check_same(finished, content)
        return
    if root.exists() and not begun.exists() and any(root.iterdir()):
        raise UserError(
            f"{root}: holds files, but no simulated matches; give another folder (data.root) "
            f"to write simulated matches into"
        )
    root.mkdir(parents=True, exist_ok=True)
    begun.write_text(json.dumps(content, indent=1))
    shared = world(spec)
    names = {
        split: [
            f"simulated/{split}/match_{k:03d}" for k in range(getattr(spec, f"{split}_matches"))
        ]
        for split in SIMULATED_SPLITS
    }
    jobs = [(split, k, name) for split in SIMULATED_SPLITS for k, name in enumerate(names[split])]
    for split, number, name in tqdm(jobs, "simulating matches", unit="match", leave=False):
        _write_match(root / name, name, spec, (SIMULATED_SPLITS.index(split), number), shared)
    for split in SIMULATED_SPLITS:
        (root / f"{split}.txt").write_text("".join(f"{name}\n" for name in names[split]))
    os.replace(begun, finished)


def read_spec(root: Path) -> SimulationSpec:
    """The spec of the simulated matches under `root`; a UserError where there are none."""
    path = root / SPEC_FILE
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: {error}; --root must hold simulated matches") from None
    if values.pop("version", None) != _VERSION:
        raise UserError(f"{root}: written by another version; delete the folder to start anew")
    return SimulationSpec.from_config(values)


def _write_match(
    folder: Path,
    name: str,
    spec: SimulationSpec,
    number: tuple[int, int],
    shared: tuple[Chain, Patterns],
) -> None:
    """One match: embeddings, audio, annotations as an annotator gives them, and the truth."""
    chain, patterns = shared
    folder.mkdir(parents=True, exist_ok=True)
    annotations: list[dict[str, str]] = []
    truth: list[dict[str, Any]] = []
    for half in (1, 2):
        rng = np.random.default_rng([spec.seed, *number, half])
        events = draw_events(chain, spec.half_seconds, rng)
        annotated = _annotated_milliseconds(events, spec, rng)
        rows = embeddings(patterns, spec.signals, events, spec.half_seconds, rng)
        np.save(folder / f"{half}_simulated_embeddings.npy", rows.astype(np.float16))
        power = mel_power(patterns, spec.signals, events, spec.half_seconds, rng)
        np.save(folder / f"audio{half}.npy", power.astype(np.float16))
        annotations += [_annotation(half, events, k, ms) for k, ms in enumerate(annotated)]
        truth += [_truth(half, events, k, ms, spec) for k, ms in enumerate(annotated)]
    labels = {"UrlLocal": name, "annotations": annotations}
    (folder / "Labels-v2.json").write_text(json.dumps(labels, indent=1))
    (folder / "true_events.json").write_text(json.dumps({"events": truth}, indent=1))


def _annotated_milliseconds(
    events: HalfEvents, spec: SimulationSpec, rng: np.random.Generator
) -> Int[np.ndarray, "event"]:
    """Times with jitter, inside the half."""
    seconds = events.seconds + rng.normal(0.0, spec.jitters[events.class_ids])
    return np.clip(np.round(seconds * 1000), 0, spec.half_seconds * 1000 - 1).astype(np.int64)


def _annotation(half: int, events: HalfEvents, index: int, milliseconds: int) -> dict[str, str]:
    seconds = int(milliseconds) // 1000
    return {
        "gameTime": f"{half} - {seconds // 60:02d}:{seconds % 60:02d}",
        "label": CLASSES[events.class_ids[index]],
        "position": str(milliseconds),
        "team": "home" if events.at_home[index] else "away",
        "visibility": "visible" if events.visible[index] else "not shown",
    }


def _truth(
    half: int, events: HalfEvents, index: int, milliseconds: int, spec: SimulationSpec
) -> dict[str, Any]:
    true_ms = float(events.seconds[index] * 1000)
    return {
        "half": half,
        "label": CLASSES[events.class_ids[index]],
        "true_ms": round(true_ms, 3),
        "annotated_ms": int(milliseconds),
        "jitter_ms": round(float(milliseconds) - true_ms, 3),
        "jitter_standard_deviation_ms": 1000 * float(spec.jitters[events.class_ids[index]]),
        "visible": bool(events.visible[index]),
    }


def _check_same(path: Path, content: dict[str, Any]) -> None:
    try:
        found = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: is no JSON ({error}); delete the folder to start anew") from None
    if found != content:
        raise UserError(
            f"{path.parent}: holds simulated matches of another spec; give another folder "
            f"(data.root) or delete this one"
        )


def _check_fields(target: type, values: dict[str, Any], where: str) -> dict[str, Any]:
    """`values`, if they are exactly the fields of dataclass `target`."""
    fields = {field.name for field in dataclasses.fields(target)}
    for key in sorted(values.keys() ^ fields):
        problem = "is no option" if key in values else "is missing"
        raise UserError(f"config.{where}.{key}: {problem}; the options are {sorted(fields)}")
    return dict(values)
