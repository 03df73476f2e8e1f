"""What the subcommands of `astra` share: how they say what they do, and whom they run with."""

import argparse
import inspect
from collections.abc import Callable
from typing import Any


def add_command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], None], example: str
) -> argparse.ArgumentParser:
    """A subcommand whose help is the first paragraph of its function's docstring."""
    description = inspect.getdoc(run) or ""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=description.splitlines()[0],
        description=description,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run)
    return parser


def add_distributed(parser: argparse.ArgumentParser) -> None:
    """The flag of commands that several processes may share."""
    parser.add_argument(
        "--distributed",
        action="store_true",
        help="one process of several, the same command in each: they find each other by "
        "JAX_COORDINATOR_ADDRESS (host:port of process 0), JAX_NUM_PROCESSES and JAX_PROCESS_ID, "
        "or, without these, as JAX detects on TPU pods, Slurm, Open MPI and Kubernetes",
    )
