"""`astra train`."""

import argparse
import logging
from pathlib import Path
from typing import Any

from astra_jax.cli.arguments import add_command, add_distributed, whole_number
from astra_jax.errors import UserError
from astra_jax.files import as_file_name

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
        help="folder of the run (default: runs/FILE'S NAME; with an ARGUMENT runs/NAME_ARGUMENT, "
        "as runs/ablations_m4_demo for configs/ablations.py:m4,demo)",
    )
    parser.add_argument(
        "--seeds",
        metavar="A,B,C",
        help="train with each of these seeds in DIR/seed_N, evaluate its best epoch into "
        "DIR/seed_N/SPLIT, and write and print their mean (DIR/seeds.json)",
    )
    parser.add_argument(
        "--split",
        metavar="NAME",
        help="with --seeds: a labelled split of the config, or a list of matches (default: test)",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="build everything, measure some steps, print memory and time needed, leave nothing",
    )
    parser.add_argument(
        "--profile",
        type=whole_number(1, 10_000),
        metavar="STEPS",
        help="trace so many steps, a few after the first, into DIR/profile, for TensorBoard or "
        "Perfetto",
    )
    add_distributed(parser)
    parser.set_defaults(overrides=[])


def run(args: argparse.Namespace) -> None:
    """Train a config, or go on where the run in this folder stopped.

    Values of the config are set by --config.KEY=VALUE; astra_jax/config/defaults.py has every key.
    """
    _check_flags(args)
    from astra_jax import runs  # JAX takes seconds to import
    from astra_jax.cli import process
    from astra_jax.config import load
    from astra_jax.devices import is_first_process
    from astra_jax.runs.components import USUAL

    process.keep_freed_memory()
    config = load.load_config(args.config, args.overrides)
    name = args.config.partition(":")[0]
    workdir = args.workdir or default_workdir(args.config)
    components = args.components or USUAL
    if args.distributed:
        process.join_hosts()
    if args.dry_run:
        from astra_jax.runs import dry_run

        with process.messages():
            measured = dry_run.measure(config, workdir, components)
        if is_first_process():
            print(dry_run.report(measured))
        return
    with process.messages():
        if (file := load.find_config(name)) != name:
            _log.info("%s is not in this folder: the shipped %s is read", name, file)
        if args.seeds is None:
            runs.train(config, workdir, components=components, profile_steps=args.profile or 0)
            return
        from astra_jax.runs import seeds

        numbers = seeds.parse_seeds(args.seeds)
        found = seeds.train_seeds(
            config, numbers, "test" if args.split is None else args.split, workdir, components
        )
    if found is not None:
        print(seeds.table(found))


def default_workdir(config: str) -> Path:
    """`runs/NAME` of the config file at `path`, `runs/NAME_ARGUMENT` of `path:argument`."""
    path, _, argument = config.partition(":")
    name = Path(path).stem
    return Path("runs") / (f"{name}_{as_file_name(argument)}" if argument else name)


def _check_flags(args: argparse.Namespace) -> None:
    """Raises UserError for flags that don't go together."""
    if args.profile is not None and (args.seeds is not None or args.dry_run):
        other = "--dry-run" if args.dry_run else "--seeds"
        raise UserError(f"--profile: traces a run of one seed: leave {other} out")
    if args.seeds is None:
        if args.split is not None:
            raise UserError("--split: goes with --seeds; one run is evaluated by `astra evaluate`")
        return
    if args.dry_run:
        raise UserError("--dry-run: measures one run, each seed takes as much: leave --seeds out")
    if any(argument.partition("=")[0] == "--config.seed" for argument in args.overrides):
        raise UserError("--config.seed: each of --seeds is one: leave either out")
