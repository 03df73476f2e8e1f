"""An evaluation: the spots of a split by one run, or several as an ensemble, and their scores."""

import dataclasses
import json
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from astra_jax.config.saved import digest
from astra_jax.data.halves import TAIL_SECONDS, Half
from astra_jax.data.index import read_labels
from astra_jax.devices import in_32_bits, is_first_process
from astra_jax.errors import UserError
from astra_jax.evaluation.metrics import METRICS, Block, average_maps
from astra_jax.files import can_be_made, write_atomically
from astra_jax.formats.soccernet_results import Prediction, write_results
from astra_jax.runs import provenance
from astra_jax.runs.compilation_cache import keeps_programs
from astra_jax.runs.components import USUAL, Components
from astra_jax.runs.coverage import Labels, covered_labels, warn_of_other_periods, warn_of_uncovered
from astra_jax.runs.folder import EvaluationFolder, RunFolder
from astra_jax.runs.members import (
    Member,
    index_members,
    matches_of_all,
    normalize_members,
    open_members,
)
from astra_jax.runs.memory import EVALUATION, explain_shortage
from astra_jax.runs.settings import Settings
from astra_jax.spotting.inference import Forward, Predictor
from astra_jax.spotting.matches import predict_matches
from astra_jax.training.checkpoint_files import checkpoint_digest

_log = logging.getLogger(__name__)


@in_32_bits
def evaluate(
    workdir: Path | Sequence[Path],
    split: str,
    out: Path,
    overrides: Sequence[str] = (),
    components: Components = USUAL,
) -> dict[str, Block] | None:
    """Predicts a split with a run's best checkpoint, writes its results and scores them.

    Several runs predict together: an ensemble (section 4.4, `spotting.inference`). Each reads its
    own sources below its own roots; labels are those below the first's.

    Args:
        workdir: of a training run, or of several.
        split: a name in `config.data.splits`, or a file that lists matches; the same for all.
        out: gets `results/`, `results.zip`, `metrics.json` and `provenance.json`.
        overrides: `--config.KEY=VALUE`, where the data lie elsewhere now; for every run that has
            the key.
        components: what the runs are computed with.

    Returns:
        The blocks of `metrics.json`; None for matches without labels (the challenge's). Where
        labels lie in halves without files, the official blocks count them, and those below
        "covered", one a metric as well, don't.

    Raises:
        UserError: anything a user can mend.
    """
    workdirs = [workdir] if isinstance(workdir, Path) else list(workdir)
    if not workdirs:
        raise UserError("--workdir: names no folder; name that of a training run")
    folder = EvaluationFolder(out)
    if RunFolder(folder.path).checkpoints.exists():
        raise UserError(
            f"{folder}: is the folder of a run: choose one in it for --out, as {folder}/test"
        )
    if folder.path.exists() and not folder.path.is_dir():
        raise UserError(f"{folder}: is a file: choose a folder for --out")
    if is_first_process() and not can_be_made(folder.path):
        raise UserError(
            f"{folder}: cannot be written: choose another place for --out or mend its rights"
        )
    members = open_members(workdirs, overrides, components)
    with keeps_programs(members[0].settings.compilation_cache):
        return _evaluate(members, split, folder, components)


def _evaluate(
    members: Sequence[Member], split: str, folder: EvaluationFolder, components: Components
) -> dict[str, Block] | None:
    """`evaluate` once the members' configs are checked."""
    matches = matches_of_all(members, split)
    halves = index_members(members, matches)
    _warn_of_lengths(members, halves)
    labels = read_labels(members[0].settings.data, matches)
    steps, params = zip(*(member.restore() for member in members), strict=True)
    halves = normalize_members(members, halves)
    started = time.monotonic()
    classes = members[0].settings.data.classes
    with explain_shortage(EVALUATION):
        predictor = _predictor(members, params, halves, components)
        predictions = predict_matches(predictor, halves[0], classes)
    _log.info(
        "%d match(es) predicted in %.1f s with %s",
        len(matches),
        time.monotonic() - started,
        f"the best checkpoint (step {steps[0]})"
        if len(members) == 1
        else f"the best checkpoints of {len(members)} models (steps {', '.join(map(str, steps))})",
    )
    blocks = None
    if labels is None:
        _log.info("no labels: %s holds the predictions, nothing is scored", folder)
    else:
        blocks = _score(labels, predictions, halves[0], members[0].settings)
    if is_first_process():
        # Scores never lie beside results that they aren't of.
        folder.metrics_path.unlink(missing_ok=True)
        write_results(folder.path, predictions)
        _write_provenance(folder, members, steps, halves, split)
        if blocks is not None:
            write_atomically(folder.metrics_path, json.dumps(blocks, indent=1) + "\n")
    return blocks


def _score(
    labels: Labels,
    predictions: Mapping[str, Sequence[Prediction]],
    halves: Sequence[Half],
    settings: Settings,
) -> dict[str, Block]:
    """The blocks of `metrics.json`: see `evaluate`."""

    def score(labels: Labels) -> dict[str, Block]:
        data = settings.data
        return average_maps(
            labels, predictions, tuple(METRICS), data.classes, settings.frame_rate, data.periods
        )

    blocks = score(labels)
    warn_of_other_periods(labels, settings.data)
    if warn_of_uncovered(labels, halves, settings.data):
        blocks["covered"] = score(covered_labels(labels, halves))
    return blocks


def _predictor(
    members: Sequence[Member],
    params: Sequence[Any],
    halves: Sequence[Sequence[Half]],
    components: Components,
) -> Predictor:
    """The members as one; a batch of windows is the smallest of theirs."""
    mesh = components.make_local_mesh()
    forwards = [
        Forward(components.make_programs(member.model, mesh), of_member)
        for member, of_member in zip(members, params, strict=True)
    ]
    smallest = min(member.settings.inference.batch_size for member in members)
    config = dataclasses.replace(members[0].settings.inference, batch_size=smallest)
    return Predictor(config, list(zip(forwards, halves, strict=True)))


def _warn_of_lengths(members: Sequence[Member], halves: Sequence[Sequence[Half]]) -> None:
    """Warns of a half that is much shorter for one member than for another."""
    for half_of_each in zip(*halves, strict=True):
        ends = [half.seconds for half in half_of_each]
        if max(ends) - min(ends) > TAIL_SECONDS:
            short, long = ends.index(min(ends)), ends.index(max(ends))
            _log.warning(
                "%s: half %d lasts %.1f s for %s, %.1f s for %s; past its end the one goes on with "
                "its last row",
                half_of_each[0].match,
                half_of_each[0].half,
                ends[short],
                members[short].folder,
                ends[long],
                members[long].folder,
            )


def _write_provenance(
    folder: EvaluationFolder,
    members: Sequence[Member],
    steps: Sequence[int],
    halves: Sequence[Sequence[Half]],
    split: str,
) -> None:
    """Which runs at which steps predicted what."""
    data = [provenance.fingerprint(of_member) for of_member in halves]
    runs = [
        {
            "workdir": str(member.folder),
            "step": step,
            "checkpoint": checkpoint_digest(member.folder.best_checkpoints, step),
            "config": digest(member.settings.config),
        }
        for member, step in zip(members, steps, strict=True)
    ]
    if len(members) == 1:
        provenance.write_evaluation(folder.provenance_path, data[0], **runs[0], split=split)
        return
    runs = [run | {"data": of} for run, of in zip(runs, data, strict=True)]
    everything = [half for of_member in halves for half in of_member]
    provenance.write_evaluation(
        folder.provenance_path, provenance.fingerprint(everything), members=runs, split=split
    )
