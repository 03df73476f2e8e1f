"""The `astra` command: its subcommands, and how each of them ends."""

import errno
import io
import sys
from collections.abc import Callable, Sequence
from typing import Any

from astra_jax import __version__
from astra_jax.cli import evaluate, import_torch, runs, score, train
from astra_jax.cli.arguments import Parser
from astra_jax.errors import Interrupted, UserError

_MENDS = {
    errno.ENOSPC: "free some space, then give the same command again",
    errno.EDQUOT: "free some space, then give the same command again",
    errno.EROFS: "choose a folder that can be written to",
    errno.EACCES: "give yourself the right to it, or choose another folder",
    errno.EPERM: "give yourself the right to it, or choose another folder",
    errno.ENAMETOOLONG: "choose a shorter name",
}


def build_parser() -> Parser:
    """The parser of `astra`, with that of each verb."""
    parser = Parser(
        prog="astra",
        description="Spot the actions of football broadcasts.",
        epilog="astra COMMAND --help: the arguments of one command, and an example.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--version", action="version", version=f"astra_jax {__version__}", help="print the version"
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in (train, evaluate, score, runs, import_torch):
        command.add(commands)
    return parser


def main(argv: Sequence[str] | None = None, components: Any = None) -> int:
    """Run `astra ARGV`; the exit code, 2 for anything that the user can mend.

    `components`: what runs are computed with (`runs.components`), None for the usual.
    """
    parser = build_parser()
    args, rest = parser.parse_known_args(argv)
    if rest and "overrides" not in args:
        parser.exit(2, f"error: unknown argument {rest[0]}; see astra {args.command} --help\n")
    keys = [word.partition("=")[0] for word in rest if word.startswith("--config.")]
    if twice := next((key for key in keys if keys.count(key) > 1), None):
        line = f"{twice} is given twice: give it once; see astra {args.command} --help"
        parser.exit(2, f"error: {line}\n")
    args.overrides, args.components = rest, components
    # A name with a character that the terminal's alphabet lacks is spelt out, and ends no command.
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")
    return run_command(lambda: args.run(args))


def run_command(command: Callable[[], None]) -> int:
    """0, or 2 with one line on stderr where `command` raises UserError or a file can't be used."""
    try:
        command()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        # A full disk, a folder without rights, a name that is too long: not ours to mend.
        if error.filename is None or error.strerror is None:
            raise
        mend = _MENDS.get(error.errno or 0, "mend it")
        print(f"error: {error.filename}: {error.strerror}; {mend}", file=sys.stderr)
        return 2
    except Interrupted as end:
        print(end, file=sys.stderr)
        return 128 + end.signal
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0
