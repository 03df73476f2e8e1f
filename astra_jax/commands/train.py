"""`astra train`."""

import argparse
import logging
from pathlib import Path
from typing import Any

from astra_jax.commands.parser import add_command, add_distributed

_CONFIG_HELP = (
    "a config file; configs/demo.py (needs no data), ablations.py, astra.py, astra_small_data.py, "
    "challenge.py, commentary.py and ensemble.py come with astra_jax: where the folder you are in "
    "has no such file, the shipped one is read. FILE:ARGUMENT chooses among a file's models"
)

_log = logging.getLogger(__name__)


def add(commands: Any) -> None:
    """Its arguments."""
    example = "astra train --config configs/astra.py --workdir runs/astra --config.data.root=DIR"
    parser = add_command(commands, "train", run, example)
    parser.add_argument("--config", required=True, metavar="FILE", help=_CONFIG_HELP)
    parser.add_argument(
        "--workdir",
        type=Path,
        metavar="DIR",
        help="folder of the run (default: runs/CONFIG'S NAME)",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="build everything, measure some steps, print memory and time needed, leave nothing",
    )
    add_distributed(parser)
    parser.set_defaults(overrides=[])


def run(args: argparse.Namespace) -> None:
    """Train a config, or go on where the run in this folder stopped.

    Values of the config are set by --config.KEY=VALUE; astra_jax/defaults.py has every key.
    """
    from astra_jax import configuration, launch, runs  # JAX takes seconds to import

    launch.keep_freed_memory()
    config = configuration.load_config(args.config, args.overrides)
    name = args.config.partition(":")[0]
    workdir = args.workdir or Path("runs") / Path(name).stem
    if args.distributed:
        launch.join_hosts()
    if args.dry_run:
        from astra_jax import dry_run

        with launch.messages():
            measured = dry_run.measure(config, workdir)
        if launch.speaks():
            print(dry_run.report(measured))
        return
    with launch.messages():
        if (file := configuration.find_config(name)) != name:
            _log.info("%s is not in this folder: the shipped %s is read", name, file)
        runs.train(config, workdir)
