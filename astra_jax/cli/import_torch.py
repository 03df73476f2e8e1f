"""`astra import-torch`."""

import argparse
import logging
from pathlib import Path
from typing import Any

from astra_jax.cli.arguments import add_command, class_names

_log = logging.getLogger(__name__)


def add(commands: Any) -> None:
    """Its arguments."""
    example = "astra import-torch model.pth.tar runs/published"
    parser = add_command(commands, "import-torch", run, example)
    parser.add_argument(
        "checkpoint",
        type=Path,
        metavar="FILE",
        help="of torch.save (with the weights under state_dict, or alone), or NAME.safetensors",
    )
    parser.add_argument(
        "out", type=Path, metavar="OUT", help="folder that becomes a run's: new, or empty"
    )
    parser.add_argument(
        "--heads",
        type=int,
        default=8,
        metavar="N",
        help="attention heads, which the file doesn't tell (default: 8, as published)",
    )
    parser.add_argument(
        "--no-hierarchical",
        dest="hierarchical",
        action="store_false",
        help="its encoder looked at whole clips in every layer, which the file doesn't tell either",
    )
    parser.add_argument(
        "--classes",
        metavar="A,B,C",
        help="its classes in their order, without the background (default: SoccerNet's 17)",
    )


def run(args: argparse.Namespace) -> None:
    """Turn a published checkpoint of PyTorch into a run's folder, ready to be evaluated.

    Sizes and parts of the model are read off the shapes. Needs the extra: pip install
    'astra-jax[torch]'.
    """
    from astra_jax.cli import process
    from astra_jax.runs.import_torch import import_checkpoint

    with process.messages():
        classes = None if args.classes is None else class_names(args.classes)
        import_checkpoint(args.checkpoint, args.out, args.heads, args.hierarchical, classes)
        _log.info(
            "astra evaluate --workdir %s --split test --out %s --config.data.root=DIR "
            "evaluates it on the matches in DIR",
            args.out,
            args.out / "test",
        )
