"""An evaluation: the spots of a split by one run, or several as an ensemble, and their scores."""

import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from astra_jax.runs import memory
from astra_jax.runs import provenance
from astra_jax.config.saved import digest
from astra_jax.data.halves import TAIL_SECONDS
from astra_jax.data.halves import Half
from astra_jax.errors import UserError
from astra_jax.evaluation.metrics import METRICS
from astra_jax.evaluation.metrics import Block
from astra_jax.evaluation.metrics import average_maps
from astra_jax.files import write_atomically
from astra_jax.runs.members import Member
from astra_jax.runs.members import index_members
from astra_jax.runs.members import matches_of_all
from astra_jax.runs.members import normalize_members
from astra_jax.runs.members import open_members
from astra_jax.runs.members import read_configs
from astra_jax.model import ASTRA
from astra_jax.runs.prepare import labels_of
from astra_jax.spotting.ensemble import Ensemble
from astra_jax.spotting.inference import Predictor
from astra_jax.spotting.matches import predict_matches
from astra_jax.formats.soccernet_results import write_results
from astra_jax.training.checkpoints import best_digest

_log = logging.getLogger(__name__)


def evaluate(
    workdir: Path | Sequence[Path], split: str, out: Path, overrides: Sequence[str] = ()
) -> dict[str, Block] | None:
    """Predicts a split with a run's best checkpoint, writes its results and scores them.

    Several runs are predicted with together: an ensemble (section 4.4, `spotting.ensemble`). Each
    reads its own sources below its own roots; labels are those below the first's.

    Args:
        workdir: of a training run, or of several.
        split: a name in `config.data.splits`, or a text file of matches; the same matches for all.
        out: gets `results/`, `results.zip`, `metrics.json` and `provenance.json`.
        overrides: `--config.KEY=VALUE`, where the data lie elsewhere now; for every run that has
            the key.

    Returns:
        The blocks of `metrics.json`; None for matches without labels (the challenge's).

    Raises:
        UserError: anything a user can mend.
    """
    workdirs, out = [workdir] if isinstance(workdir, Path) else list(workdir), out.expanduser()
    if not workdirs:
        raise UserError("--workdir: names no folder; name that of a training run")
    configs = read_configs(workdirs, overrides)
    if (out / "checkpoints").exists():
        raise UserError(f"{out}: is the folder of a run: choose one in it for --out, as {out}/test")
    members = open_members(workdirs, configs)
    matches = matches_of_all(members, split)
    halves = index_members(members, matches)
    _tell_lengths(members, halves)
    labels = labels_of(members[0].spec, matches)
    steps, params = zip(*(member.restore() for member in members), strict=True)
    halves = normalize_members(members, halves)
    started = time.monotonic()
    classes = members[0].spec.classes
    with memory.shortage(memory.EVALUATION):
        predictor = _predictor(members, params, halves)
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
        _log.info("no labels: %s holds the predictions, nothing is scored", out)
    else:
        blocks = average_maps(labels, predictions, tuple(METRICS), classes)
    if jax.process_index() == 0:
        # Scores never lie beside results that they aren't of.
        (out / "metrics.json").unlink(missing_ok=True)
        write_results(out, predictions)
        _write_provenance(out, members, steps, halves, split)
        if blocks is not None:
            write_atomically(out / "metrics.json", json.dumps(blocks, indent=1) + "\n")
    return blocks


def _predictor(
    members: Sequence[Member], params: Sequence[Any], halves: Sequence[Sequence[Half]]
) -> Predictor | Ensemble:
    """One model, or several as one."""
    predictors = [
        Predictor(member.config, ASTRA(member.model_config), of_member)
        for member, of_member in zip(members, params, strict=True)
    ]
    if len(predictors) == 1:
        return predictors[0]
    return Ensemble(list(zip(predictors, halves, strict=True)))


def _tell_lengths(members: Sequence[Member], halves: Sequence[Sequence[Half]]) -> None:
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
                members[short].workdir,
                ends[long],
                members[long].workdir,
            )


def _write_provenance(
    out: Path,
    members: Sequence[Member],
    steps: Sequence[int],
    halves: Sequence[Sequence[Half]],
    split: str,
) -> None:
    """Which runs at which steps predicted what."""
    data = [provenance.fingerprint(of_member) for of_member in halves]
    runs = [
        {
            "workdir": str(member.workdir),
            "step": step,
            "checkpoint": best_digest(member.workdir.expanduser(), step),
            "config": digest(member.config),
        }
        for member, step in zip(members, steps, strict=True)
    ]
    if len(members) == 1:
        provenance.write(out, data[0], **runs[0], split=split)
        return
    runs = [run | {"data": of} for run, of in zip(runs, data, strict=True)]
    everything = [half for of_member in halves for half in of_member]
    provenance.write(out, provenance.fingerprint(everything), members=runs, split=split)
