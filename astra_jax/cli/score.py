"""`astra score`."""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from astra_jax.cli.arguments import add_command, class_names
from astra_jax.config.classes import CLASSES
from astra_jax.data.splits import load_split
from astra_jax.errors import UserError
from astra_jax.evaluation.metrics import METRICS, average_maps
from astra_jax.evaluation.table import score_table
from astra_jax.files import write_atomically
from astra_jax.formats.soccernet_labels import read_raw_annotations
from astra_jax.formats.soccernet_results import read_predictions

LABELS_FILE = "Labels-v2.json"


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
        "--predictions",
        required=True,
        type=Path,
        metavar="DIR|ZIP",
        help="results folder or zip: league/season/match/results_spotting.json",
    )
    matches = parser.add_mutually_exclusive_group()
    matches.add_argument("--split", metavar="NAME", help="train, valid or test of SoccerNet")
    matches.add_argument(
        "--matches", metavar="FILE", help="text file, one league/season/match a line"
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
        default=["tight", "loose"],
        choices=list(METRICS),
        metavar="NAME",
        help=f"some of {', '.join(METRICS)} (default: tight loose)",
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write the scores there, as in metrics.json"
    )


def run(args: argparse.Namespace) -> None:
    """Score results by the official SoccerNet metric.

    Without --split and --matches every labelled match counts; each needs its predictions.
    """
    classes = class_names(args.classes)
    chosen, given_by = (args.split, "--split") if args.split else (args.matches, "--matches")
    matches = load_split(chosen, given_by=given_by) if chosen else labelled_matches(args.labels)
    labels = {match: read_raw_annotations(args.labels / match / LABELS_FILE) for match in matches}
    predictions = read_predictions(args.predictions, matches)
    _check_known(args.labels, labels, classes)
    _check_known(args.predictions, predictions, classes)
    blocks = average_maps(labels, predictions, args.metric, classes)
    if args.json is not None:
        try:
            write_atomically(args.json, json.dumps(blocks, indent=1) + "\n")
        except OSError as error:
            raise UserError(
                f"{args.json}: cannot be written ({error.strerror or error}); mend --json"
            ) from error
    print(f"{len(matches)} match{'es' if len(matches) > 1 else ''}\n\n{score_table(blocks)}")


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
            f"{found[0]!r}); name the classes: --classes 'A,B,C'"
        )


def labelled_matches(root: Path) -> tuple[str, ...]:
    """Every `league/season/match` under `root` that has a label file, sorted.

    Raises UserError where there is no such folder or no label file in it.
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such folder of labels; mend --labels")
    files = root.glob(f"*/*/*/{LABELS_FILE}")
    matches = tuple(sorted(file.parent.relative_to(root).as_posix() for file in files))
    if not matches:
        raise UserError(
            f"{root}: holds no league/season/match/{LABELS_FILE}; mend --labels, or download "
            "SoccerNet-v2's labels"
        )
    return matches
