"""The log of a run: what is in it, when it is there, and that the terminal stays as it is."""

import contextlib
import dataclasses
import logging
import os
import re
import signal
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.faults import COMPONENTS, at_step, command, tell
from helpers.runs import LINEAR, contents, refused
from helpers.tiny import tiny_config, write_data

from astra_jax import runs
from astra_jax.cli.main import main
from astra_jax.cli.process import messages
from astra_jax.errors import UserError
from astra_jax.runs import run_log
from astra_jax.runs.folder import RunFolder
from astra_jax.runs.lock import lock_folder
from astra_jax.runs.run_log import keep_log

LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d{4} (INFO|WARNING|ERROR) ([\w.]+): (.*)")
LIBRARIES = ("absl", "orbax", "grain", "jax", "asyncio", "concurrent.futures")
OURS = logging.getLogger("astra_jax.somewhere")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


def written(workdir: Path, more: bool = False) -> list[tuple[str, str, str]]:
    """Level, logger and text of each line; `more`: some texts have more lines, left out."""
    found = [LINE.fullmatch(line) for line in (workdir / "log.txt").read_text().splitlines()]
    assert more or all(found)
    return [match.groups() for match in found if match]


def logging_now() -> dict[str, Any]:
    """All that a run could leave changed."""
    names = (None, "astra_jax", *LIBRARIES)
    handlers = [h for name in names for h in logging.getLogger(name).handlers]
    return {
        "show": warnings.showwarning,
        "filters": {id(handler): list(handler.filters) for handler in handlers},
        "last": logging.lastResort and list(logging.lastResort.filters),
        **{
            str(name): (of.level, list(of.handlers), of.propagate)
            for name in names
            for of in [logging.getLogger(name)]
        },
    }


@contextlib.contextmanager
def no_handlers_at_the_root() -> Iterator[None]:
    """As in a program that has not set up logging: warnings go to the terminal."""
    root = logging.getLogger()
    before = list(root.handlers)
    for handler in before:
        root.removeHandler(handler)
    yield
    for handler in before:
        root.addHandler(handler)


def warn_old() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("the old way", DeprecationWarning, stacklevel=1)


# A run


def test_a_run_by_the_command_has_its_lines_and_goes_on_in_the_same_file(root, tmp_path, capfd):
    workdir = tmp_path / "run"
    assert main(command(root, workdir), at_step(5, lambda: tell(signal.SIGTERM))) == 143
    first = written(workdir)
    told = [text for _, name, text in first if name.startswith("astra_jax")]
    assert f"{workdir}: 10,126 parameters" in told[0]
    assert told[1].startswith("epoch 1: loss ") and "validation tight Average-mAP" in told[1]
    assert told[2].startswith("told to end: finishing the step")
    assert told[3].startswith("ended by SIGTERM after step 5, saved")
    said = capfd.readouterr()
    assert all(text in said.err + said.out for text in told)
    assert main(command(root, workdir), COMPONENTS) == 0
    again = written(workdir)
    assert again[: len(first)] == first and len(again) > len(first) + 2
    assert "INFO" not in capfd.readouterr().err


def test_what_ends_a_run_is_in_its_log(root, tmp_path, capsys):
    def end(error: BaseException) -> Any:
        def act() -> None:
            raise error

        return at_step(2, act)

    workdir = tmp_path / "run"
    assert main(command(root, workdir), end(UserError("a fault to mend"))) == 2
    assert written(workdir)[-1] == ("ERROR", "astra_jax", "a fault to mend")
    with pytest.raises(ZeroDivisionError):
        main(command(root, workdir), end(ZeroDivisionError("ours")))
    text = (workdir / "log.txt").read_text()
    assert "ERROR astra_jax: the run failed\nTraceback (most recent call last):" in text
    assert text.endswith("ZeroDivisionError: ours\n")


def test_a_run_that_is_refused_leaves_no_log(root, tmp_path):
    workdir = tmp_path / "run"
    with refused("no such folder"):
        runs.train(tiny_config(tmp_path / "nowhere"), workdir, components=LINEAR)
    assert not workdir.exists()
    with lock_folder(RunFolder(workdir)), refused("a run is at work"):
        runs.train(tiny_config(root), workdir, components=LINEAR)
    assert not workdir.exists()
    runs.train(tiny_config(root), workdir, components=LINEAR)
    before, other = contents(workdir), tiny_config(root)
    other.training.epochs = 5
    with refused("another config"):
        runs.train(other, workdir, components=LINEAR)
    assert contents(workdir) == before


def test_a_run_whose_data_are_gone_says_so_in_its_log(root, tmp_path):
    with refused("stopped"):
        runs.train(tiny_config(root), tmp_path, components=at_step(5, stop))
    with refused("no such folder"):
        runs.train(tiny_config(tmp_path / "nowhere"), tmp_path, components=COMPONENTS)
    (level, _, text) = written(tmp_path)[-1]
    assert level == "ERROR" and "no such folder" in text


def stop() -> None:
    raise UserError("stopped")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_a_log_that_is_a_pipe_without_a_reader_is_not_waited_for(tmp_path, caplog):
    os.mkfifo(tmp_path / "log.txt")
    with keep_log(folder_with(tmp_path)) as log:
        log.open()
        log.say("lost")
    assert "log.txt: cannot be written" in caplog.text


def test_a_log_that_cannot_be_written_does_not_end_the_run(root, tmp_path, caplog):
    (tmp_path / "log.txt").mkdir()
    assert runs.train(tiny_config(root), tmp_path, components=LINEAR)["steps"] == 9
    (line,) = [text for text in caplog.messages if "log.txt" in text]
    assert line == (
        f"{tmp_path}/log.txt: cannot be written (Is a directory): the run goes on without"
    )


def test_a_full_disk_does_not_end_the_run_by_its_log(root, tmp_path):
    (tmp_path / "log.txt").symlink_to("/dev/full")
    assert runs.train(tiny_config(root), tmp_path, components=LINEAR)["steps"] == 9


@pytest.mark.parametrize("error", [None, UserError("x")])
def test_a_program_that_calls_train_has_its_logging_back(root, tmp_path, caplog, capsys, error):
    def act() -> None:
        logging.getLogger("absl").info("of every file")
        for name in LIBRARIES:
            logging.getLogger(name).warning("%s warns", name)
        warn_old()
        if error is not None:
            raise error

    before = logging_now()
    components = dataclasses.replace(LINEAR, put_batch=at_step(2, act).put_batch)
    with pytest.warns(DeprecationWarning, match="the old way"), contextlib.suppress(UserError):
        runs.train(tiny_config(root), tmp_path, components=components)
    assert logging_now() == before
    found = written(tmp_path, more=True)
    assert [("WARNING", name, f"{name} warns") for name in LIBRARIES] == [
        line for line in found if line[2].endswith(" warns")
    ]
    assert any(n == "py.warnings" and "DeprecationWarning: the old way" in t for _, n, t in found)
    assert not any("of every file" in text for _, _, text in found)
    assert any("parameters" in text for level, _, text in found if level == "INFO")
    # The program asked for warnings only, and that is what it gets.
    ours = [record for record in caplog.records if record.name.startswith("astra_jax")]
    assert [record for record in ours if record.levelno < logging.WARNING] == []
    assert "parameters" not in capsys.readouterr().err


# The log by itself


def folder_with(tmp_path: Path) -> RunFolder:
    tmp_path.mkdir(exist_ok=True)
    return RunFolder(tmp_path)


def test_lines_from_before_the_folder_is_the_run_s_are_kept(tmp_path):
    with messages(), keep_log(folder_with(tmp_path)) as log:
        OURS.info("early")
        assert not (tmp_path / "log.txt").exists()
        log.open()
        OURS.info("late")
    OURS.warning("after the end")
    assert [text for _, _, text in written(tmp_path)] == ["early", "late"]


def test_what_is_said_as_before_where_nobody_has_set_up_logging(tmp_path, capsys):
    with no_handlers_at_the_root(), keep_log(folder_with(tmp_path)) as log:
        assert logging.lastResort is not None
        log.open()
        OURS.info("ours")
        OURS.warning("ours warns")
        logging.getLogger("orbax.one").warning("orbax warns")
    # What Python says where there is no handler, once a line, and nothing of INFO.
    assert capsys.readouterr().err == "ours warns\norbax warns\n"
    assert [text for _, _, text in written(tmp_path)] == ["ours", "ours warns", "orbax warns"]


def test_the_command_s_terminal_has_our_lines_only(tmp_path, capsys):
    with messages(), keep_log(folder_with(tmp_path)) as log:
        log.open()
        OURS.info("ours")
        for name in ("absl", "asyncio", "concurrent.futures"):
            logging.getLogger(name).error("a thread of theirs")
    assert capsys.readouterr().err == "ours\n"
    assert len(written(tmp_path)) == 4


def test_of_several_processes_the_first_one_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(run_log, "is_first_process", lambda: False)
    before = logging_now()
    with keep_log(folder_with(tmp_path)) as log:
        assert logging_now() == before
        log.say("a line")
        log.open()
    assert list(tmp_path.iterdir()) == []
