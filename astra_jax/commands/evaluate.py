"""`astra evaluate`."""

import argparse
from pathlib import Path
from typing import Any

from astra_jax.commands.parser import add_command, add_distributed
from astra_jax.evaluation.table import score_table


def add(commands: Any) -> None:
    """Its arguments."""
    example = "astra evaluate --workdir runs/astra --split test --out runs/astra/test"
    parser = add_command(commands, "evaluate", run, example)
    parser.add_argument(
        "--workdir", required=True, type=Path, metavar="DIR", help="folder of the run"
    )
    parser.add_argument(
        "--split", required=True, metavar="NAME", help="a split of the config, or a list of matches"
    )
    parser.add_argument(
        "--out",
        required=True,
        type=Path,
        metavar="OUT",
        help="folder that gets results/, results.zip and metrics.json",
    )
    add_distributed(parser)
    parser.set_defaults(overrides=[])


def run(args: argparse.Namespace) -> None:
    """Predict a split with a run's best checkpoint, write the results and score them.

    Where the data lie elsewhere now, say so by --config.data.root=DIR.
    """
    from astra_jax import launch, runs

    launch.keep_freed_memory()
    if args.distributed:
        launch.join_hosts()
    with launch.messages():
        blocks = runs.evaluate(args.workdir, args.split, args.out, args.overrides)
    if blocks is not None and launch.speaks():
        print(score_table(blocks, per_class=("tight", "loose")))
