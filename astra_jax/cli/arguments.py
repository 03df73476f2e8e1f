"""What the subcommands of `astra` share: how they say what they do, and whom they run with."""

import argparse
import inspect
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from astra_jax.errors import UserError, shown


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line, and which takes a flag once.

    A flag that is given again adds to its list, where its action is "extend" or "append"; of any
    other argparse would silently keep the last.
    """

    def error(self, message: str) -> NoReturn:
        """Ends the command with one line and 2."""
        line = " ".join(message.splitlines())
        self.exit(2, f"error: {line}; see {self.prog} --help\n")

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """As argparse's, once no flag is found to be given twice."""
        words = list(sys.argv[1:] if args is None else args)
        given = set()
        for word in words[: words.index("--")] if "--" in words else words:
            # argparse takes no word that reads like one of its flags for the value of another.
            action = self._option_string_actions.get(word.partition("=")[0])
            if action is None or isinstance(action, argparse._AppendAction):
                continue
            if action.default is argparse.SUPPRESS:  # help and version, which keep no value
                continue
            if action in given:
                self.error(f"{'/'.join(action.option_strings)} is given twice: give it once")
            given.add(action)
        return super().parse_known_args(words, namespace)


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


def whole_number(first: int, last: int) -> Callable[[str], int]:
    """An argument's type: a whole number from `first` to `last`."""

    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit() and first <= int(text[:9]) <= last):
            raise argparse.ArgumentTypeError(
                f"{shown(text)}, it must be a whole number from {first} to {last}"
            )
        return int(text)

    return read


def period_numbers(text: str) -> tuple[int, ...]:
    """An argument's type: numbers of periods, 1 to 9, separated by commas."""
    numbers = tuple(number.strip() for number in text.split(","))
    if not set(numbers) <= set("123456789") or len(set(numbers)) < len(numbers):
        raise argparse.ArgumentTypeError(
            f"{shown(text)}, it must name periods from 1 to 9, each once: 1,2"
        )
    return tuple(int(number) for number in numbers)


def class_names(text: str) -> tuple[str, ...]:
    """The classes that `--classes` names. Raises: UserError: an empty name, or one twice."""
    classes = tuple(name.strip() for name in text.split(","))
    if "" in classes or len(set(classes)) < len(classes):
        raise UserError(f"--classes: {text!r}, it must name every class once: A,B,C")
    return classes
