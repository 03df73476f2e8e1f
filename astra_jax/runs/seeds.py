"""Protocol P1 of the paper (section 4.2): several seeds of one config, and their mean scores."""

import contextlib
import json
import logging
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from astra_jax.config.saved import digest
from astra_jax.data.index import index_halves, read_labels
from astra_jax.data.layout import check_roots
from astra_jax.data.splits import SPLITS
from astra_jax.devices import ask_first_process, is_first_process
from astra_jax.errors import UserError
from astra_jax.evaluation.table import align_numbers
from astra_jax.files import as_file_name, read_mapping, remove_unfinished, write_atomically
from astra_jax.runs import provenance
from astra_jax.runs.components import USUAL, Components
from astra_jax.runs.evaluate import evaluate
from astra_jax.runs.folder import EvaluationFolder, RunFolder
from astra_jax.runs.init_from import read_warm_start
from astra_jax.runs.lock import lock_folder
from astra_jax.runs.prepare import matches_of, write_simulation
from astra_jax.runs.settings import Settings, resolve, settings_for_training
from astra_jax.runs.train import train
from astra_jax.training.checkpoint_files import checkpoint_digest
from astra_jax.training.interruption import Interruption

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
    config: ConfigDict,
    seeds: Sequence[int],
    split: str,
    workdir: Path,
    components: Components = USUAL,
    train: Callable[..., dict[str, Any]] = train,
    evaluate: Callable[..., dict[str, Any] | None] = evaluate,
) -> dict[str, Any] | None:
    """Trains `config` with each seed and evaluates its best epoch on a split, one after the other.

    Each seed has its run in `WORKDIR/seed_N`, its evaluation in a folder there that is named like
    the split; simulated matches are shared. What is finished there is kept: the same call goes on
    where it stopped. The scores of all are written after each seed.

    Returns:
        What is written (`summary`); None in all processes but the first.

    Raises:
        UserError: anything a user can mend. What can be known before the first training, is.
        Interrupted: a signal came; all is saved.
    """
    folder = RunFolder(workdir)
    _check_folder(folder)
    config = resolve(config, folder)  # all seeds share simulated matches
    settings = Settings.from_config(config)
    _check_named(settings, split)
    own = {seed: _with_seed(config, seed) for seed in seeds}
    opened = {seed: settings_for_training(own[seed], folder.seed(seed)) for seed in seeds}
    begins = next((seed for seed in seeds if not folder.seed(seed).path.exists()), None)
    if begins is not None:  # before simulated matches are written
        model = components.make_model(settings.model)
        read_warm_start(opened[begins], folder.seed(begins), model)
    first = is_first_process()
    lock = lock_folder(folder) if first else contextlib.nullcontext(lambda: None)
    with lock as release_lock, Interruption(at_once=release_lock).watch():
        if first:
            remove_unfinished(folder.path)
        data = _fingerprint_of(settings, split)
        done: dict[int, Scored] = {}
        for number, seed in enumerate(seeds, start=1):
            _log.info("seed %d, number %d of %d", seed, number, len(seeds))
            run = folder.seed(seed)
            out = EvaluationFolder(run.path / as_file_name(split)[-_LONGEST_NAME:])
            scored = _find_scores(opened[seed], run, out, split, data)
            # Another process may see the files of the first one late.
            if missing := not ask_first_process(scored is not None):
                summary_of_run = train(
                    own[seed], run.path, at_once=release_lock, components=components
                )
                if first:
                    # Without its scores an earlier evaluation counts no more, even if this one is
                    # cut off.
                    out.metrics_path.unlink(missing_ok=True)
                blocks = evaluate(run.path, split, out.path, components=components)
                if blocks is None:
                    raise UserError(f"--split {split}: its labels are gone: bring them back")
                scored = _read_scores(blocks, summary_of_run["best_epoch"])
            if first and scored is not None:
                done[seed] = scored
                if missing or number == len(seeds):
                    content = json.dumps(summarize(split, done), indent=1)
                    write_atomically(folder.seeds_path, content + "\n")
    return summarize(split, done) if first else None


def summarize(split: str, done: Mapping[int, Scored]) -> dict[str, Any]:
    """What is written of several seeds: each seed's scores, their mean and standard deviation.

    The deviation is the sample's (n - 1), None for one seed. All are fractions.
    """
    return {
        "split": split,
        "seeds": [
            {"seed": seed, **of.scores, "best_epoch": of.best_epoch} for seed, of in done.items()
        ],
        "mean": _statistics(list(done.values()), statistics.fmean),
        "standard_deviation": _statistics(list(done.values()), _deviation),
    }


def table(content: Mapping[str, Any]) -> str:
    """Readable text of `summarize`, in percent: a line a seed, then mean and deviation."""

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
    return align_numbers(rows)


def _statistics(done: Sequence[Scored], statistic: Callable[[list[float]], float | None]) -> Any:
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


def _with_seed(config: ConfigDict, seed: int) -> ConfigDict:
    copy = ConfigDict(config)
    copy.seed = seed
    return copy


def _check_folder(folder: RunFolder) -> None:
    folder.check_is_no_file()
    if folder.config_path.exists():
        raise UserError(f"{folder}: is the folder of one run: choose another --workdir for --seeds")


def _check_named(settings: Settings, split: str) -> None:
    """Refuses what is neither one of the config's splits nor a list of matches that is there.

    A config that names its own splits does not mean SoccerNet's by theirs.
    """
    splits = settings.splits
    if splits.get(split):
        return  # simulated lists may not be written yet
    if split in splits or split in SPLITS:
        there = ", ".join(name for name, matches in splits.items() if matches)
        raise UserError(
            f"--split {split}: the config has no such split (data.splits has {there}): choose "
            "another, or a text file or JSON list of matches"
        )
    matches_of(settings, split)


def _fingerprint_of(settings: Settings, split: str) -> str:
    """The fingerprint of the split's matches, all of which must be there and labelled.

    Simulated matches are written first, once for all seeds.
    """
    write_simulation(settings)
    check_roots(settings.data, labelled=True)
    matches = matches_of(settings, split)
    halves = index_halves(settings.data, matches, labelled=False)
    if read_labels(settings.data, matches) is None:
        raise UserError(
            f"--split {split}: its matches have no labels to score: choose another split, or "
            "train one run and predict this one by `astra evaluate`"
        )
    return provenance.fingerprint(halves)


def _find_scores(
    settings: Settings, run: RunFolder, out: EvaluationFolder, split: str, data: str
) -> Scored | None:
    """What a finished seed's evaluation says; None where there is none of just this.

    That is: the config, the split, the fingerprint `data` of its matches, the bytes of the best
    checkpoint.
    """
    trained = run.summary()
    evaluated = read_mapping(out.provenance_path)
    blocks = read_mapping(out.metrics_path)
    if trained is None or evaluated is None or blocks is None or not out.zip_path.is_file():
        return None
    try:
        epoch = int(trained["best_epoch"])
        step = epoch * (int(trained["steps"]) // int(trained["epochs"]))
        scored = _read_scores(blocks, epoch)
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError):  # damaged
        return None
    if any(scores.keys() != set(settings.data.classes) for scores in scored.per_class.values()):
        return None
    weights = checkpoint_digest(run.best_checkpoints, step)
    expected = {"split": split, "data": data, "step": step, "checkpoint": weights}
    expected["config"] = digest(settings.config)
    same = all(evaluated.get(key) == value for key, value in expected.items())
    return scored if same and weights is not None else None


def _read_scores(blocks: Mapping[str, Any], best_epoch: int) -> Scored:
    return Scored(
        best_epoch,
        {metric: float(blocks[metric]["a_mAP"]) for metric in METRICS},
        {
            metric: {name: float(v) for name, v in blocks[metric]["a_mAP_per_class"].items()}
            for metric in METRICS
        },
    )
