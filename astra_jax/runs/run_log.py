"""The log of a run: what the package says, and what libraries warn of, with date, time and level.

The terminal has only our own lines. Libraries are kept from WARNING on: at INFO Orbax tells of
every file that it writes, a hundred lines a checkpoint.
"""

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator
from typing import Any, TextIO

from astra_jax.devices import is_first_process
from astra_jax.errors import Interrupted, UserError
from astra_jax.runs.folder import RunFolder
from astra_jax.training.checkpoint_files import has_latest

_OURS = "astra_jax"
_LIBRARIES = ("absl", "asyncio", "concurrent.futures", "grain", "jax", "orbax")
_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_DATE = "%Y-%m-%d %H:%M:%S%z"

_log = logging.getLogger(__name__)


class RunLog(logging.Handler):
    """Keeps lines until the folder is known to be the run's, then writes them into its log.

    Each line is one write to the end of the file, without a lock: the thread that takes signals
    never waits for another one. Of several processes the first one writes.
    """

    def __init__(self, folder: RunFolder) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter(_FORMAT, _DATE))
        self._folder = folder
        self._file: int | None = None
        self._early: list[str] | None = [] if is_first_process() else None

    def open(self) -> None:
        """From now on all is written, with what was said before. One that can't be is told of."""
        if self._early is None:
            return
        early, self._early = self._early, None
        try:
            # Not to wait for whoever reads a pipe of this name.
            how = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
            self._file = os.open(self._folder.log_path, how, 0o644)
        except OSError as error:
            _log.warning(
                "%s: cannot be written (%s): the run goes on without",
                self._folder.log_path,
                error.strerror,
            )
            return
        for line in early:
            self._write(line)

    def go_on(self) -> None:
        """Opens it where the folder holds what this run has left before."""
        folder = self._folder
        if folder.log_path.exists() or has_latest(folder.latest_checkpoints):
            self.open()

    def handle(self, record: logging.LogRecord) -> bool:
        """Takes a record where it is of the level that is kept."""
        ours = record.name.partition(".")[0] == _OURS
        if record.levelno >= (logging.INFO if ours else logging.WARNING):
            self.emit(record)
        return True

    def emit(self, record: logging.LogRecord) -> None:
        """Writes a record, or keeps it until there is a file."""
        self._write(f"{self.format(record)}\n")

    def say(self, line: str, level: int = logging.INFO, **attributes: Any) -> None:
        """A line of ours that the terminal gets in another way."""
        said = {"name": _OURS, "levelno": level, "levelname": logging.getLevelName(level)}
        self.handle(logging.makeLogRecord({**said, "msg": line, **attributes}))

    def _write(self, line: str) -> None:
        if self._early is not None:
            self._early.append(line)
        elif self._file is not None:
            with contextlib.suppress(OSError):  # a full disk: others of the run tell of it
                os.write(self._file, line.encode(errors="replace"))

    @contextlib.contextmanager
    def tells_the_end(self) -> Iterator[None]:
        """What ends the run is written as well, if there is a run."""
        try:
            yield
        except BaseException as error:
            self.go_on()
            if isinstance(error, Interrupted):
                self.say(str(error))
            elif isinstance(error, UserError):
                self.say(str(error), logging.ERROR)
            else:
                found = (type(error), error, error.__traceback__)
                self.say("the run failed", logging.ERROR, exc_info=found)
            raise

    def close(self) -> None:
        """Nothing is written from here on."""
        self._early = None
        if self._file is not None:
            os.close(self._file)
            self._file = None
        super().close()


@contextlib.contextmanager
def keep_log(folder: RunFolder) -> Iterator[RunLog]:
    """The log of the run in `folder`, closed at the end; logging is then as it was before.

    What the terminal shows stays the same meanwhile, whoever has set up logging.
    """
    log, ours = RunLog(folder), logging.getLogger(_OURS)
    with contextlib.ExitStack() as undo:
        undo.callback(log.close)
        if is_first_process():
            before = ours.getEffectiveLevel()
            for name in (_OURS, *_LIBRARIES):
                undo.enter_context(_added(logging.getLogger(name), log))
            if before > logging.INFO:
                undo.enter_context(_told_more(ours, before, log))
            undo.enter_context(_with_warnings(log))
        yield log


@contextlib.contextmanager
def _added(logger: logging.Logger, log: RunLog) -> Iterator[None]:
    handlers: list[logging.Handler] = [log]
    if not logger.hasHandlers() and logging.lastResort is not None:
        # What shows warnings where nobody has set up logging; it would count as not needed.
        handlers.append(logging.lastResort)
    for handler in handlers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for handler in handlers:
            logger.removeHandler(handler)


@contextlib.contextmanager
def _told_more(ours: logging.Logger, before: int, log: RunLog) -> Iterator[None]:
    """Lets our lines of level INFO come into being; the other handlers get none that is below
    the level `before`, as until now.
    """

    def passes(record: logging.LogRecord) -> bool:
        return record.levelno >= before or record.name.partition(".")[0] != _OURS

    others = [handler for handler in _handlers(ours) if handler is not log]
    level = ours.level
    for handler in others:
        handler.addFilter(passes)
    ours.setLevel(logging.INFO)
    try:
        yield
    finally:
        ours.setLevel(level)
        for handler in others:
            handler.removeFilter(passes)


def _handlers(logger: logging.Logger | None) -> Iterator[logging.Handler]:
    """All that a record of this logger comes to."""
    while logger is not None:
        yield from logger.handlers
        logger = logger.parent if logger.propagate else None


@contextlib.contextmanager
def _with_warnings(log: RunLog) -> Iterator[None]:
    """What Python's `warnings` show is in the log as well."""
    before = warnings.showwarning

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        before(message, category, filename, lineno, file, line)
        text = warnings.formatwarning(message, category, filename, lineno).strip()
        log.say(text, logging.WARNING, name="py.warnings")

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = before
