"""How a command ends before its end: a fault that the user can mend, or a signal."""

from signal import Signals


class UserError(Exception):
    """Something the user can mend.

    The message is one line: what is wrong, where (file, match or config key) and how to
    mend it. The command lines print it without a traceback and exit with code 2.
    """


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
