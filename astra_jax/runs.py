"""A run and its folder: puts training, spotting and evaluation together."""

import contextlib
import json
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from astra_jax.checks import check
from astra_jax.configuration import differences, from_json, override, to_json
from astra_jax.data import normalization
from astra_jax.data.normalization import Normalizations, normalized
from astra_jax.data.pipeline import TrainingStream
from astra_jax.data.simulation import SimulationSpec, write_matches
from astra_jax.data.soccernet import (
    DataSpec,
    Half,
    check_roots,
    index_halves,
    load_split,
    read_raw_annotations,
)
from astra_jax.errors import UserError
from astra_jax.evaluation.metrics import METRICS, Block, average_maps
from astra_jax.files import write_atomically
from astra_jax.lock import locked
from astra_jax.model import ASTRA, ModelConfig
from astra_jax.spotting.inference import Predictor, suppression_of
from astra_jax.spotting.results import Prediction, spots_to_predictions, write_results
from astra_jax.training.checkpoints import Checkpoints
from astra_jax.training.interruption import Interruption
from astra_jax.training.loop import Trainer, Validate, check_training
from astra_jax.training.optimizer import learning_rate_schedule
from astra_jax.training.state import abstract_params, make_mesh, replicated
from astra_jax.training.trackers import check_trackers

_log = logging.getLogger(__name__)

# What may differ between a run and its continuation: where the data lie, how they are loaded, and
# who is told of it.
_MOVABLE = (
    *(f"data.{name}" for name in ("root", "labels_root", "features_root", "audio_root", "workers")),
    *(f"logging.{name}" for name in ("tensorboard", "wandb_project")),
)


def train(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """Trains `config` in `workdir`, or goes on where an earlier call stopped.

    Writes `config.json`, `checkpoints/`, `metrics.jsonl` and at the end `summary.json`, whose
    content it returns.

    Raises:
        UserError: anything a user can mend: files, config values, a workdir of another run.
    """
    workdir = workdir.expanduser()
    if workdir.exists() and not workdir.is_dir():
        raise UserError(f"{workdir}: is a file: choose a folder for --workdir")
    # All that can be wrong with a config is found out before anything is written.
    check(config)
    check_training(config, jax.device_count())
    suppression_of(config)
    learning_rate_schedule(config, steps_per_epoch=1)
    check_trackers(config)
    _check_same_run(config, workdir)
    # One process speaks for all: the others wait for it wherever they meet.
    lock = locked(workdir) if jax.process_index() == 0 else contextlib.nullcontext(lambda: None)
    with lock as give_back:
        interruption = Interruption(at_once=give_back)
        with interruption.watched():
            return _train(config, workdir, interruption)


def _train(config: ConfigDict, workdir: Path, interruption: Interruption) -> dict[str, Any]:
    """`train` in a folder that is ours."""
    if config.simulation is not None and config.data.root is None:
        config.data.root = str((workdir / "matches").absolute())
    spec = DataSpec.from_config(config.data)
    model_config = model_of(config)
    _prepare_simulation(config)
    check_roots(spec, labelled=True)  # before the splits, whose lists may lie there
    halves = index_halves(spec, _matches(config, "train"))
    normalizations = _normalizations(workdir, halves)
    stream = TrainingStream(normalized(halves, normalizations), config)
    validate = _validator(config, model_config, spec, normalizations, interruption)
    trainer = Trainer(config, model_config, stream, workdir, validate, interruption)
    with trainer.closing():
        return _run(trainer, config, workdir, len(halves) // 2, normalizations)


def _run(
    trainer: Trainer,
    config: ConfigDict,
    workdir: Path,
    matches: int,
    normalizations: Normalizations,
) -> dict[str, Any]:
    """The run itself, and the files of its folder beside the trainer's own."""
    summary_file = workdir / "summary.json"
    stream = trainer.stream
    if trainer.progress.finished:
        _log.info("%s: this run is finished; evaluate it, or choose another --workdir", workdir)
        if (summary := _read_summary(summary_file)) is not None:
            return summary
    else:
        _log.info(
            "%s: %s parameters, %d match(es), %d clips an epoch, %d device(s) (%s)",
            workdir,
            f"{trainer.parameters:,}",
            matches,
            stream.steps_per_epoch * config.training.batch_size,
            jax.device_count(),
            jax.devices()[0].device_kind,
        )
    if jax.process_index() == 0:
        write_atomically(workdir / "config.json", to_json(config))
        normalization.save(workdir / normalization.FILE_NAME, normalizations)
    progress = trainer.run()
    summary = {
        "best_epoch": progress.best_epoch,
        "best_validation_tight": progress.best_score,
        "steps": int(trainer.state.step),
        "epochs": int(trainer.state.step) // stream.steps_per_epoch,
        "parameters": trainer.parameters,
        "seconds": round(progress.seconds, 1),
        "devices": jax.device_count(),
        "device_kind": jax.devices()[0].device_kind,
    }
    if jax.process_index() == 0:
        write_atomically(summary_file, json.dumps(summary, indent=1) + "\n")
    return summary


def evaluate(
    workdir: Path, split: str, out: Path, overrides: Sequence[str] = ()
) -> dict[str, Block] | None:
    """Predicts a split with a run's best checkpoint, writes its results and scores them.

    Args:
        workdir: of a training run.
        split: a name in `config.data.splits`, or a text file of matches.
        out: gets `results/`, `results.zip` and `metrics.json`.
        overrides: `--config.KEY=VALUE`, where the data lie elsewhere now.

    Returns:
        The blocks of `metrics.json`; None for matches without labels (the challenge's).

    Raises:
        UserError: anything a user can mend.
    """
    config = override(from_json(workdir.expanduser() / "config.json"), overrides)
    check(config)
    suppression_of(config)
    spec = DataSpec.from_config(config.data)
    model_config = model_of(config)
    check_roots(spec, labelled=False)
    matches = _matches(config, split)
    halves = index_halves(spec, matches, labelled=False)
    labels = _labels(spec, matches)
    abstract = abstract_params(model_config, replicated(make_mesh()))
    with contextlib.closing(Checkpoints(workdir.expanduser(), read_only=True)) as checkpoints:
        step, params = checkpoints.restore_best(abstract)
    halves = normalized(halves, _normalizations(workdir, ()))
    started = time.monotonic()
    predictor = Predictor(config, ASTRA(model_config), _host_copy(params))
    predictions = predict_matches(predictor, halves, spec.classes)
    _log.info(
        "%d match(es) predicted in %.1f s with the best checkpoint (step %d)",
        len(matches),
        time.monotonic() - started,
        step,
    )
    blocks = None
    if labels is None:
        _log.info("no labels: %s holds the predictions, nothing is scored", out)
    else:
        blocks = average_maps(labels, predictions, tuple(METRICS), spec.classes)
    if jax.process_index() == 0:
        write_results(out, predictions)
        # Scores never lie beside results that they aren't of.
        (out / "metrics.json").unlink(missing_ok=True)
        if blocks is not None:
            write_atomically(out / "metrics.json", json.dumps(blocks, indent=1) + "\n")
    return blocks


def model_of(config: ConfigDict) -> ModelConfig:
    """The model of a run; computes in bfloat16 on GPU and TPU unless the config says otherwise."""
    on_cpu = jax.default_backend() == "cpu"
    return ModelConfig.from_config(config, default_dtype="float32" if on_cpu else "bfloat16")


def predict_matches(
    predictor: Predictor,
    halves: Sequence[Half],
    classes: Sequence[str],
    before_each: Callable[[], None] = lambda: None,
) -> dict[str, list[Prediction]]:
    """The spots of every match; with several processes each predicts its share of the halves.

    `before_each` is called before each half; what it raises ends the prediction.
    """
    rate = predictor.config.clip.positions_per_second
    own: dict[str, list[Prediction]] = {}
    for half in halves[jax.process_index() :: jax.process_count()]:
        before_each()
        spots = predictor.spots(half)
        found = spots_to_predictions(spots, half.half, classes, rate)
        own.setdefault(half.match, []).extend(found)
    gathered = _gather(own)
    return {
        half.match: [spot for part in gathered for spot in part.get(half.match, [])]
        for half in halves
    }


def _gather(part: dict[str, list[Prediction]]) -> list[dict[str, list[Prediction]]]:
    """Every process's part, in their order."""
    if jax.process_count() == 1:
        return [part]
    content = np.frombuffer(json.dumps(part).encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.array([len(content)]))
    padded = np.zeros(int(sizes.max()), np.uint8)
    padded[: len(content)] = content
    rows = multihost_utils.process_allgather(padded)
    return [
        json.loads(row[: int(size)].tobytes())
        for row, size in zip(rows, sizes.ravel(), strict=True)
    ]


def _host_copy(params: Any) -> Any:
    """Parameters as NumPy arrays; each process holds all of them."""
    return jax.tree.map(lambda leaf: np.asarray(leaf.addressable_data(0)), params)


def _normalizations(workdir: Path, halves: Sequence[Half]) -> Normalizations:
    """Those of the run in `workdir`; measured on the training `halves` where there are none."""
    path = workdir.expanduser() / normalization.FILE_NAME
    if halves and not path.exists():
        return normalization.measure(halves)
    return normalization.load(path)


def _validator(
    config: ConfigDict,
    model_config: ModelConfig,
    spec: DataSpec,
    normalizations: Normalizations,
    interruption: Interruption,
) -> Validate | None:
    """Scores of whole matches of the validation split, by the real inference."""
    if not config.data.splits.get("valid"):
        return None
    matches = _matches(config, "valid")
    halves = normalized(index_halves(spec, matches), normalizations)
    labels = _labels(spec, matches)
    if labels is None:
        raise UserError("config.data.splits.valid: its matches have no labels to validate with")
    predictor: Predictor | None = None

    def validate(params: Any) -> dict[str, float]:
        nonlocal predictor
        params = _host_copy(params)
        if predictor is None:
            predictor = Predictor(config, ASTRA(model_config), params)
        else:
            predictor.replace_params(params)
        predictions = predict_matches(predictor, halves, spec.classes, interruption.check)
        blocks = average_maps(labels, predictions, ("tight", "loose"), spec.classes)
        tight, loose = blocks["tight"]["a_mAP"], blocks["loose"]["a_mAP"]
        return {"score": tight, "tight": tight, "loose": loose}

    return validate


def _matches(config: ConfigDict, split: str) -> tuple[str, ...]:
    # As a dict: a ConfigDict would take the dot of a file's name for a path of keys.
    name = config.data.splits.to_dict().get(split, split)
    if not name:
        raise UserError(f"data.splits.{split}: names no list of matches; set it")
    return load_split(name, config.data.labels_root or config.data.root)


def _labels(spec: DataSpec, matches: Sequence[str]) -> dict[str, list[dict[str, Any]]] | None:
    """The annotations that the metric reads; None where no match has any."""
    paths = {match: spec.labels_root / match / spec.labels_file for match in matches}
    if not any(path.is_file() for path in paths.values()):
        return None
    return {match: read_raw_annotations(path) for match, path in paths.items()}


def _read_summary(path: Path) -> dict[str, Any] | None:
    """The summary of a finished run; None where it is absent or damaged: it is written anew."""
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return summary if isinstance(summary, dict) else None


def _prepare_simulation(config: ConfigDict) -> None:
    """Writes the simulated matches of a demo run where the config asks for them."""
    if config.simulation is None:
        return
    if jax.process_index() == 0:
        write_matches(Path(config.data.root), SimulationSpec.from_config(config.simulation))
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("simulated matches are written")


def _check_same_run(config: ConfigDict, workdir: Path) -> None:
    """A folder with checkpoints takes no other config, but for where the data lie."""
    path = workdir / "config.json"
    if not path.exists() or not (workdir / "checkpoints").exists():
        return
    changed = [key for key in differences(config, from_json(path)) if key not in _MOVABLE]
    if changed:
        raise UserError(
            f"{path}: the run in this folder has another config ({', '.join(changed)} differ): "
            "use its config, or another --workdir"
        )
