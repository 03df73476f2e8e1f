"""The `astra` command: its help, what it hands on to its verbs, and how it ends."""

import subprocess
import sys
from pathlib import Path

import pytest

from astra_jax.cli.main import main, run_command
from astra_jax.errors import UserError


@pytest.mark.parametrize("command", ["train", "evaluate", "score"])
def test_help_gives_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    assert f"example:\n  astra {command} " in capsys.readouterr().out


def test_the_command_does_not_wait_for_jax() -> None:
    code = "import sys, astra_jax.cli; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_user_error_is_one_line_and_2(capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> None:
        raise UserError("first\nsecond")

    assert run_command(command) == 2
    assert capsys.readouterr().err == "error: first second\n"
    assert run_command(lambda: None) == 0


def test_other_errors_are_not_swallowed() -> None:
    with pytest.raises(ZeroDivisionError):
        run_command(lambda: print(1 // 0))


def test_config_values_reach_the_commands_that_take_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "c.py"
    config.write_text("from astra_jax.config import paper as get_config\n")
    arguments = ["train", "--config", str(config), "--config.data.root=/a b", "--workdir"]
    # Each is wrong in one way more than the one after it.
    for more, message in (
        ([str(config), "--config.seed=-1"], f"{config}: is a file: choose a folder for --workdir"),
        ([str(tmp_path / "w"), "--config.seed=-1"], "config.seed: -1, it must be"),
        ([str(tmp_path / "w"), "--config.seed=2"], "/a b: no such folder (data.root"),
    ):
        assert main([*arguments, *more]) == 2
        assert capsys.readouterr().err.startswith(f"error: {message}")
