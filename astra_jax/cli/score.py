"""`astra score`."""

import argparse
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from astra_jax.cli.arguments import add_command, class_names, period_numbers, whole_number
from astra_jax.config.classes import CLASSES
from astra_jax.data.splits import load_split
from astra_jax.errors import UserError, one_line
from astra_jax.evaluation.frames import FRAMES_PER_SECOND, HIGHEST_FRAME_RATE
from astra_jax.evaluation.late import beyond_grid, describe_late
from astra_jax.evaluation.metrics import METRICS, average_maps
from astra_jax.evaluation.table import score_table
from astra_jax.files import write_atomically
from astra_jax.formats.soccernet_labels import (
    check_file_name,
    describe_others,
    parse_annotation,
    read_raw_annotations,
)
from astra_jax.formats.soccernet_results import read_predictions

LABELS_FILE = "Labels-v2.json"

_log = logging.getLogger(__name__)


def add(commands: Any) -> None:
    """Its arguments."""
    example = "astra score --labels SoccerNet --predictions out/results.zip --split test"
    parser = add_command(commands, "score", run, example)
    parser.add_argument(
        "--labels",
        required=True,
        type=Path,
        metavar="DIR",
        help=f"folder that holds league/season/match/{LABELS_FILE}",
    )
    parser.add_argument(
        "--labels-file",
        default=LABELS_FILE,
        metavar="NAME",
        help=f"what the label file of a match is called (default: {LABELS_FILE})",
    )
    parser.add_argument(
        "--predictions",
        required=True,
        type=Path,
        metavar="DIR|ZIP",
        help="results folder or zip: league/season/match/results_spotting.json",
    )
    matches = parser.add_mutually_exclusive_group()
    matches.add_argument("--split", metavar="NAME", help="train, valid or test of SoccerNet")
    matches.add_argument(
        "--matches",
        metavar="FILE",
        help="text file, one league/season/match a line, or a JSON list of them",
    )
    parser.add_argument(
        "--classes",
        default=",".join(CLASSES),
        metavar="A,B,C",
        help="the classes that count, separated by commas (default: SoccerNet's 17)",
    )
    parser.add_argument(
        "--metric",
        nargs="+",
        action="extend",
        choices=list(METRICS),
        metavar="NAME",
        help=f"some of {', '.join(METRICS)} (default: tight loose); atN is a tolerance of N "
        "seconds, half of it either way",
    )
    parser.add_argument(
        "--frame-rate",
        type=whole_number(1, HIGHEST_FRAME_RATE),
        default=FRAMES_PER_SECOND,
        metavar="N",
        help="frames a second that times are cut to (default: 2, as SoccerNet's action spotting; "
        "its ball task's mAP@1 is at1 at 25)",
    )
    parser.add_argument(
        "--periods",
        type=period_numbers,
        default=(1, 2),
        metavar="A,B",
        help="the periods that count (default: 1,2)",
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write the scores there, as in metrics.json"
    )


def run(args: argparse.Namespace) -> None:
    """Score results by the official SoccerNet metric.

    Without --split and --matches every labelled match counts; each needs its predictions.
    """
    classes = class_names(args.classes)
    labels_file = check_file_name(args.labels_file, "--labels-file")
    chosen, given_by = (args.split, "--split") if args.split else (args.matches, "--matches")
    if chosen:
        matches = load_split(chosen, given_by=given_by)
    else:
        matches = labelled_matches(args.labels, labels_file)
    paths = {match: args.labels / match / labels_file for match in matches}
    labels = {
        match: read_raw_annotations(path, "--labels or --labels-file")
        for match, path in paths.items()
    }
    predictions = read_predictions(args.predictions, matches)
    _check_known(args.labels, labels, classes)
    _check_known(args.predictions, predictions, classes)
    _tell(labels, predictions, classes, args.periods)
    metrics = args.metric or ("tight", "loose")
    blocks = average_maps(labels, predictions, metrics, classes, args.frame_rate, args.periods)
    if args.json is not None:
        try:
            write_atomically(args.json, json.dumps(blocks, indent=1) + "\n")
        except OSError as error:
            raise UserError(
                f"{args.json}: cannot be written ({error.strerror or error}); mend --json"
            ) from error
    title = f"{len(matches)} match{'es' if len(matches) > 1 else ''}"
    if args.frame_rate != FRAMES_PER_SECOND:
        title += f", {args.frame_rate} frames a second"
    print(f"{title}\n\n{score_table(blocks)}")


def _tell(
    labels: Mapping[str, Sequence[Mapping[str, Any]]],
    predictions: Mapping[str, Sequence[Mapping[str, Any]]],
    classes: Sequence[str],
    periods: Sequence[int],
) -> None:
    """Log what the metric leaves out or moves without a word."""
    if late := beyond_grid(labels, predictions, periods):
        _log.warning("%s", describe_late(late))
    halves = [parse_annotation(entry).half for of in labels.values() for entry in of]
    if line := describe_others(halves, periods, "--periods"):
        _log.warning("%s", line)
    names = [entry["label"] for of in labels.values() for entry in of]
    if unknown := [name for name in names if name not in classes]:
        _log.warning(
            "%d of %d label(s) are of other classes (the first is %s) and left out; --classes "
            "names those that count",
            len(unknown),
            len(names),
            one_line(repr(unknown[0])),
        )


def _check_known(
    path: Path, of_matches: Mapping[str, Sequence[Mapping[str, Any]]], classes: Sequence[str]
) -> None:
    """Raises UserError where there are labels and all are of other classes: the score would be 0.

    Some of other classes are allowed, as in the official metric, which leaves them out.
    """
    found = [entry["label"] for entries in of_matches.values() for entry in entries]
    if found and not any(label in classes for label in found):
        raise UserError(
            f"{path}: none of its {len(found)} label(s) is of a known class (the first is "
            f"{one_line(repr(found[0]))}); name the classes: --classes 'A,B,C'"
        )


def labelled_matches(root: Path, labels_file: str) -> tuple[str, ...]:
    """Every `league/season/match` under `root` that has a label file, sorted.

    Raises UserError where there is no such folder or no label file in it.
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such folder of labels; mend --labels")
    folders = [folder for folder in root.glob("*/*/*") if (folder / labels_file).is_file()]
    matches = tuple(sorted(folder.relative_to(root).as_posix() for folder in folders))
    if not matches:
        raise UserError(
            f"{root}: holds no league/season/match/{labels_file}; mend --labels or --labels-file, "
            "or download SoccerNet-v2's labels"
        )
    return matches
