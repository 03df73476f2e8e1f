"""What the subcommands of `astra` share: how they say what they do, and whom they run with."""

import argparse
import inspect
from collections.abc import Callable
from typing import Any

from astra_jax.errors import UserError


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


def class_names(text: str) -> tuple[str, ...]:
    """The classes that `--classes` names. Raises: UserError: an empty name, or one twice."""
    classes = tuple(name.strip() for name in text.split(","))
    if "" in classes or len(set(classes)) < len(classes):
        raise UserError(f"--classes: {text!r}, it must name every class once: A,B,C")
    return classes
