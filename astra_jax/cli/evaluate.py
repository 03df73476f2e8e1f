"""`astra evaluate`."""

import argparse
import os
from pathlib import Path
from typing import Any

from astra_jax.cli.arguments import add_command, add_distributed
from astra_jax.errors import UserError
from astra_jax.evaluation.table import score_table

SHOWN = ("tight", "loose")
"""The metrics whose classes are printed, and whose covered scores are, where there are any."""


def add(commands: Any) -> None:
    """Its arguments."""
    example = "astra evaluate --workdir runs/astra --split test --out runs/astra/test"
    parser = add_command(commands, "evaluate", run, example)
    parser.add_argument(
        "--workdir",
        required=True,
        metavar="DIR[,DIR...]",
        help="folder of the run; of several runs, separated by commas, the predictions are "
        "averaged (an ensemble)",
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

    Where the data lie elsewhere now, say so by --config.data.root=DIR. Of several runs each gets
    the --config.KEY=VALUE whose keys it has.
    """

    from astra_jax import runs  # JAX takes seconds to import
    from astra_jax.cli import process
    from astra_jax.devices import is_first_process
    from astra_jax.runs.components import USUAL

    process.keep_freed_memory()
    if args.distributed:
        process.join_hosts()
    with process.messages():
        blocks = runs.evaluate(
            split_workdirs(args.workdir),
            args.split,
            args.out,
            args.overrides,
            args.components or USUAL,
        )
    if blocks is not None and is_first_process():
        covered = blocks.pop("covered", {})
        shown = {f"covered {name}": covered[name] for name in SHOWN if name in covered}
        print(score_table(blocks | shown, per_class=SHOWN))


def split_workdirs(text: str) -> Path | list[Path]:
    """The folder, or the folders between commas; a folder's own name may hold one."""
    if "," not in text or os.path.isdir(os.path.expanduser(text)):
        return Path(text)
    names = text.split(",")
    if "" in names:
        raise UserError(f"--workdir {text}: a name is empty; give DIR,DIR without other commas")
    return [Path(name) for name in names]
