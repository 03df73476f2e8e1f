"""While something takes long, the terminal says what and for how long; else nothing."""

import io
import logging
import sys
import time

import pytest

from astra_jax.runs import waiting
from astra_jax.runs.waiting import says_what_takes_long


class Screen(io.StringIO):
    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "QUIET_SECONDS", 0.05)
    monkeypatch.setattr(waiting, "_REFRESH_SECONDS", 0.05)


def screen_for(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> Screen:
    """Stands for stderr; not made by a fixture, after which pytest puts its own there."""
    screen = Screen(terminal)
    monkeypatch.setattr(sys, "stderr", screen)
    return screen


def until(holds) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_terminal_has_one_line_that_is_written_anew_and_taken_away(monkeypatch):
    screen = screen_for(monkeypatch, terminal=True)
    began = time.monotonic() - 100
    with says_what_takes_long("compiling", began):
        until(lambda: screen.getvalue().count("compiling (100 s)") > 1)
    lines = screen.getvalue().split("\r\x1b[K")
    assert "\n" not in screen.getvalue() and lines[0] == lines[-1] == ""
    assert set(lines[1:-1]) <= {f"compiling ({seconds} s)" for seconds in range(100, 140)}


def test_elsewhere_it_is_a_line_of_the_log_each_time_that_it_took_twice_as_long(
    monkeypatch, caplog
):
    screen = screen_for(monkeypatch, terminal=False)
    monkeypatch.setattr(waiting, "_FIRST_LINE_SECONDS", 0.1)
    with caplog.at_level(logging.INFO, "astra_jax"), says_what_takes_long("compiling"):
        until(lambda: len(caplog.messages) == 3)
    assert caplog.messages[0] == "compiling (0 s)" and len(caplog.messages) < 5
    assert screen.getvalue() == ""


def test_what_began_long_ago_is_spoken_of_once_for_all_that_time(monkeypatch, caplog):
    screen_for(monkeypatch, terminal=False)
    began = time.monotonic() - 500
    with caplog.at_level(logging.INFO, "astra_jax"), says_what_takes_long("compiling", began):
        until(lambda: caplog.messages)
        time.sleep(0.1)  # for lines that should not come
    assert caplog.messages == ["compiling (500 s)"]


@pytest.mark.parametrize("terminal", [True, False])
def test_what_takes_no_time_is_not_spoken_of(terminal, monkeypatch, caplog):
    screen = screen_for(monkeypatch, terminal)
    monkeypatch.setattr(waiting, "QUIET_SECONDS", 60.0)
    with caplog.at_level(logging.INFO, "astra_jax"), says_what_takes_long("compiling"):
        pass
    assert screen.getvalue() == "" and not caplog.messages
