"""Protocol P1 of the paper (section 4.2): several seeds of one config, and their mean scores."""

import contextlib
import json
import logging
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from astra_jax.runs import provenance
from astra_jax import runs
from astra_jax.config.saved import digest
from astra_jax.data.splits import SPLITS
from astra_jax.data.layout import check_roots
from astra_jax.data.index import index_halves
from astra_jax.errors import UserError
from astra_jax.evaluation.table import aligned
from astra_jax.files import as_file_name
from astra_jax.files import read_mapping
from astra_jax.files import remove_unfinished
from astra_jax.files import write_atomically
from astra_jax.runs.lock import locked
from astra_jax.runs.prepare import begin
from astra_jax.runs.prepare import check_config
from astra_jax.runs.prepare import labels_of
from astra_jax.runs.prepare import matches_of
from astra_jax.runs.prepare import model_of
from astra_jax.runs.init_from import warm_start_of
from astra_jax.training.checkpoints import best_digest
from astra_jax.training.interruption import Interruption

FILE_NAME = "seeds.json"
METRICS = ("tight", "loose")

_LARGEST_SEED = 2**32 - 1
_LONGEST_NAME = 60

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Scored:
    """A seed's best epoch and, of its evaluation, each metric of METRICS and that of each class.

    `scores`: fractions. `per_class`: the same by class.
    """

    best_epoch: int
    scores: dict[str, float]
    per_class: dict[str, dict[str, float]]


def parse_seeds(text: str) -> list[int]:
    """The seeds in `1,2,3`.

    Raises:
        UserError: a part is no whole number that a seed can be, or one is there twice.
    """
    seeds: list[int] = []
    for part in text.split(","):
        word = part.strip()
        whole = word.isascii() and word.isdecimal() and len(word) <= len(str(_LARGEST_SEED))
        if not whole or int(word) > _LARGEST_SEED:
            raise UserError(
                f"--seeds: {word[:40]!r} is no whole number from 0 to {_LARGEST_SEED}: give them "
                "as 1,2,3,4,5"
            )
        if int(word) in seeds:
            raise UserError(f"--seeds: {int(word)} is there twice: take one away")
        seeds.append(int(word))
    return seeds


def train_seeds(
    config: ConfigDict, seeds: Sequence[int], split: str, workdir: Path
) -> dict[str, Any] | None:
    """Trains `config` with each seed and evaluates its best epoch on a split, one after the other.

    Each seed has its run in `WORKDIR/seed_N`, its evaluation in `WORKDIR/seed_N/SPLIT`; simulated
    matches are shared. What is finished there is kept: the same call goes on where it stopped.
    `WORKDIR/seeds.json` is written behind each seed.

    Returns:
        The content of `seeds.json` (`summary`); None in all processes but the first.

    Raises:
        UserError: anything a user can mend. What can be known before the first training, is.
        Interrupted: a signal came; all is saved.
    """
    workdir = workdir.expanduser()
    _check_folder(workdir)
    check_config(config)
    _check_named(config, split)
    for seed in seeds:
        runs.check_same_run(_with_seed(config, seed), _folder(workdir, seed))
    begins = next((seed for seed in seeds if not _folder(workdir, seed).exists()), None)
    if begins is not None:  # before simulated matches are written
        warm_start_of(config, model_of(config), _folder(workdir, begins))
    first = jax.process_index() == 0
    lock = locked(workdir) if first else contextlib.nullcontext(lambda: None)
    with lock as give_back, Interruption(at_once=give_back).watched():
        if first:
            remove_unfinished(workdir)
        data = _data_of(config, split, workdir)
        done: dict[int, Scored] = {}
        for number, seed in enumerate(seeds, start=1):
            _log.info("seed %d, number %d of %d", seed, number, len(seeds))
            folder = _folder(workdir, seed)
            out = folder / as_file_name(split)[-_LONGEST_NAME:]
            own = _with_seed(config, seed)
            scored = _found(own, folder, out, split, data)
            # Another process may see the files of the first one late.
            if missing := not _first_process_says(scored is not None):
                trained = runs.train(own, folder, at_once=give_back)
                scored = _evaluate(folder, out, split, trained)
            if first and scored is not None:
                done[seed] = scored
                if missing or number == len(seeds):
                    content = json.dumps(summary(split, done), indent=1)
                    write_atomically(workdir / FILE_NAME, content + "\n")
    return summary(split, done) if first else None


def summary(split: str, done: Mapping[int, Scored]) -> dict[str, Any]:
    """The content of `seeds.json`: each seed's scores, their mean and standard deviation.

    The deviation is the sample's (n - 1), None for one seed. All are fractions.
    """
    return {
        "split": split,
        "seeds": [
            {"seed": seed, **of.scores, "best_epoch": of.best_epoch} for seed, of in done.items()
        ],
        "mean": _over(list(done.values()), statistics.fmean),
        "standard_deviation": _over(list(done.values()), _deviation),
    }


def table(content: Mapping[str, Any]) -> str:
    """Readable text of `seeds.json`, in percent: a line a seed, then mean and deviation."""

    def percent(values: Mapping[str, float | None]) -> list[str]:
        found = (values[metric] for metric in METRICS)
        return ["-" if value is None else f"{100 * value:.2f}" for value in found]

    rows: list[tuple[str, Sequence[str]]] = [
        (f"{content['split']}, Average-mAP, %", (*METRICS, "best epoch"))
    ]
    rows += [
        (f"seed {seed['seed']}", [*percent(seed), str(seed["best_epoch"])])
        for seed in content["seeds"]
    ]
    rows.append(("mean", percent(content["mean"])))
    rows.append(("standard deviation", percent(content["standard_deviation"])))
    return aligned(rows)


def _over(done: Sequence[Scored], statistic: Callable[[list[float]], float | None]) -> Any:
    """A statistic of each metric, and of each class's, over seeds."""
    found: dict[str, Any] = {}
    for metric in METRICS:
        found[metric] = statistic([of.scores[metric] for of in done])
        found[f"{metric}_per_class"] = {
            name: statistic([of.per_class[metric][name] for of in done])
            for name in done[0].per_class[metric]
        }
    return found


def _deviation(values: list[float]) -> float | None:
    return statistics.stdev(values) if len(values) > 1 else None


def _folder(workdir: Path, seed: int) -> Path:
    return workdir / f"seed_{seed}"


def _with_seed(config: ConfigDict, seed: int) -> ConfigDict:
    copy = config.copy_and_resolve_references()
    copy.seed = seed
    return copy


def _check_folder(workdir: Path) -> None:
    if workdir.exists() and not workdir.is_dir():
        raise UserError(f"{workdir}: is a file: choose a folder for --workdir")
    if (workdir / "config.json").exists():
        raise UserError(
            f"{workdir}: is the folder of one run: choose another --workdir for --seeds"
        )


def _check_named(config: ConfigDict, split: str) -> None:
    """Refuses what is neither one of the config's splits nor a list of matches that is there.

    A config that names its own splits does not mean SoccerNet's by theirs.
    """
    splits = config.data.splits.to_dict()
    if splits.get(split):
        return  # simulated lists may not be written yet
    if split in splits or split in SPLITS:
        there = ", ".join(name for name, matches in splits.items() if matches)
        raise UserError(
            f"--split {split}: the config has no such split (data.splits has {there}): choose "
            "another, or a text file of matches"
        )
    matches_of(config, split)


def _data_of(config: ConfigDict, split: str, workdir: Path) -> str:
    """The fingerprint of the split's matches, all of which must be there and labelled.

    Simulated matches are written first, once for all seeds: the config gets their `data.root`.
    """
    spec, _ = begin(config, workdir)
    check_roots(spec, labelled=True)
    matches = matches_of(config, split)
    halves = index_halves(spec, matches, labelled=False)
    if labels_of(spec, matches) is None:
        raise UserError(
            f"--split {split}: its matches have no labels to score: choose another split, or "
            "train one run and predict this one by `astra evaluate`"
        )
    return provenance.fingerprint(halves)


def _found(config: ConfigDict, folder: Path, out: Path, split: str, data: str) -> Scored | None:
    """What a finished seed's evaluation says; None where there is none of just this.

    That is: the config, the split, the fingerprint `data` of its matches, the bytes of the best
    checkpoint.
    """
    trained = read_mapping(folder / "summary.json")
    told = read_mapping(out / provenance.FILE_NAME)
    blocks = read_mapping(out / "metrics.json")
    if trained is None or told is None or blocks is None or not (out / "results.zip").is_file():
        return None
    try:
        epoch = int(trained["best_epoch"])
        step = epoch * (int(trained["steps"]) // int(trained["epochs"]))
        scored = _scored(blocks, epoch)
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError):  # damaged
        return None
    if any(scores.keys() != set(config.data.classes) for scores in scored.per_class.values()):
        return None
    weights = best_digest(folder, step)
    expected = {"split": split, "data": data, "step": step, "checkpoint": weights}
    expected["config"] = digest(config)
    same = all(told.get(key) == value for key, value in expected.items())
    return scored if same and weights is not None else None


def _evaluate(folder: Path, out: Path, split: str, trained: Mapping[str, Any]) -> Scored:
    """Evaluates a finished seed."""
    if jax.process_index() == 0:
        # Without its scores an earlier evaluation counts no more, even if this one is cut off.
        (out / "metrics.json").unlink(missing_ok=True)
    blocks = runs.evaluate(folder, split, out)
    if blocks is None:
        raise UserError(f"--split {split}: its labels are gone: bring them back")
    return _scored(blocks, trained["best_epoch"])


def _scored(blocks: Mapping[str, Any], best_epoch: int) -> Scored:
    return Scored(
        best_epoch,
        {metric: float(blocks[metric]["a_mAP"]) for metric in METRICS},
        {
            metric: {name: float(v) for name, v in blocks[metric]["a_mAP_per_class"].items()}
            for metric in METRICS
        },
    )


def _first_process_says(yes: bool) -> bool:
    """Process 0's answer, in every process."""
    if jax.process_count() == 1:
        return yes
    return bool(multihost_utils.broadcast_one_to_all(np.asarray(yes)))
