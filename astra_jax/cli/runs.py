"""`astra runs`."""

import argparse
import json
from pathlib import Path
from typing import Any

from astra_jax.cli.arguments import add_command


def add(commands: Any) -> None:
    """Its arguments."""
    example = "astra runs runs --config astra/first astra/second"
    parser = add_command(commands, "runs", run, example)
    parser.add_argument(
        "folder",
        nargs="?",
        default=Path("runs"),
        type=Path,
        metavar="DIR",
        help="folder that runs lie in, at any depth up to four (default: runs)",
    )
    parser.add_argument(
        "--config",
        nargs=2,
        metavar=("A", "B"),
        help="print the config keys that differ between two runs",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> None:
    """List the runs below a folder: state, epochs, scores, duration; or compare two configs.

    Scores are Average-mAP in percent: the best of the validation, and those of the evaluations
    that lie in the run's folder.
    """
    from astra_jax.runs import listing

    if args.config:
        found = listing.config_differences(args.folder, *args.config)
        same = "the two configs are the same"
        text = listing.difference_table(found, *args.config) if found else same
        print(json.dumps(found, indent=1) if args.json else text)
        return
    runs = listing.find_runs(args.folder)
    if args.json:
        print(listing.as_json(runs))
    else:
        print(listing.table(runs) if runs else f"{args.folder}: no run in it")
