"""How a command ends before its end, by a fault that the user can mend or a signal; its words."""

import reprlib
from collections.abc import Mapping, Sequence
from signal import Signals
from typing import Any


class UserError(Exception):
    """Something the user can mend.

    The message is one line, whatever the names in it hold: what is wrong, where (file, match or
    config key) and how to mend it. The command lines print it without a traceback and exit with
    code 2.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.splitlines()))


class Interrupted(BaseException):
    """A signal, by its number, ended the command: no fault, so no handler of faults takes it.

    `saved_step`: the step after which a training can go on, None where nothing new was saved.
    """

    def __init__(self, signal: int, saved_step: int | None = None) -> None:
        super().__init__(signal, saved_step)
        self.signal, self.saved_step = signal, saved_step

    def __str__(self) -> str:
        saved = "" if self.saved_step is None else f" after step {self.saved_step:,}, saved"
        return f"ended by {Signals(self.signal).name}{saved}: the same command again goes on"


def reading_error(path: object, error: OSError) -> UserError:
    """For a file, at `path`, that is there and that the system does not let be read."""
    return UserError(
        f"{path}: cannot be read ({error.strerror or error}); mend its rights, or see to its disk"
    )


def join_some(items: Sequence[str], most: int) -> str:
    """The first `most` items in a line, the others counted: "a, b and 3 more"."""
    more = len(items) - most
    return ", ".join(items[:most]) + (f" and {more} more" if more > 0 else "")


def shown(value: Any) -> str:
    """A short text of a wrong value, on one line."""
    if isinstance(value, Mapping):  # its text may have many lines
        return "a mapping"
    try:
        return reprlib.repr(value)
    except ValueError:  # Python writes no whole number of more than 4300 digits
        return "a number of thousands of digits"


def one_line(error: BaseException | str, most: int = 200) -> str:
    """An error's text in one line of at most `most` characters; its type where it has no text."""
    text = " ".join(str(error).split())
    if not text and isinstance(error, BaseException):
        text = type(error).__name__
    return text[:most]
