"""Every mistake in files, config or folders is one line and exit code 2, and nothing is begun."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.matches import WIDE
from helpers.tiny import TRAIN, VALID, tiny_config, write_data

from astra_jax.cli.main import main
from astra_jax.config.saved import to_json

HERE = Path(__file__).parent
CONFIG = str(HERE / "helpers" / "tiny.py")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_data(tmp_path / "data")


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., None]:
    """Calls `astra ARGUMENTS`: code 2, nothing on stdout, one line with the words on stderr."""

    def check(arguments: list[str], *words: str) -> None:
        assert main(arguments) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.startswith("error: ") and err.count("\n") == 1, err
        assert err.endswith("\n") and [word for word in words if word not in err] == [], err

    return check


def train(root: Path, *more: str) -> list[str]:
    workdir = root.parent / "run"
    places = ["--workdir", str(workdir), f"--config.data.root={root}"]
    return ["train", "--config", CONFIG, *places, *more]


def change_label(root: Path, match: str = TRAIN, **values: object) -> Path:
    """Changes the first annotation of a match."""
    path = root / match / "Labels-v2.json"
    content = json.loads(path.read_text())
    content["annotations"][0].update(values)
    path.write_text(json.dumps(content))
    return path


# Files; what each one's reader says in detail is tested with the reader


def test_a_missing_root_says_where_the_files_come_from_and_how_to_do_without(tmp_path, refused):
    words = ("data.root", "https://www.soccer-net.org/data", "configs/demo.py")
    refused(train(tmp_path / "none"), str(tmp_path / "none"), *words)
    assert not list(tmp_path.iterdir())


def test_the_papers_config_without_a_root_says_so(tmp_path, refused):
    config = str(HERE.parent / "configs" / "astra.py")
    workdir = str(tmp_path / "run")
    refused(["train", "--config", config, "--workdir", workdir], "--config.data.root=DIR")
    assert not list(tmp_path.iterdir())


def break_file(root: Path) -> tuple[str, ...]:
    path = root / TRAIN / WIDE.format(half=2)
    path.write_bytes(b"no array")
    return (str(path), "numpy.save")


def widen_file(root: Path) -> tuple[str, ...]:
    path = root / TRAIN / WIDE.format(half=1)
    np.save(path, np.zeros((120, 7), np.float32))
    return (str(path), "7 columns", "announces 6", "widths")


def invent_a_label(root: Path) -> tuple[str, ...]:
    path = change_label(root, label="Handball")
    return (str(path), "annotation 1", "'Handball'", "data.unknown_labels")


def break_json(root: Path) -> tuple[str, ...]:
    path = root / TRAIN / "Labels-v2.json"
    path.write_text(path.read_text()[:-20])
    return (str(path), "broken JSON", "download it again")


def forget_the_half(root: Path) -> tuple[str, ...]:
    path = change_label(root, gameTime="12:10")
    return (str(path), "annotation 1", "'12:10', not a half")


def go_back_in_time(root: Path) -> tuple[str, ...]:
    path = change_label(root, position="-20")
    return (str(path), "annotation 1", "negative", "-20")


def spoil_the_validation(root: Path) -> tuple[str, ...]:
    return (str(change_label(root, VALID, position="-1")), "negative")


def lose_a_match(root: Path) -> tuple[str, ...]:
    (root / TRAIN).rename(root / "elsewhere")
    return (TRAIN, str(root), "download it")


@pytest.mark.parametrize(
    "spoil",
    [
        break_file,
        widen_file,
        invent_a_label,
        break_json,
        forget_the_half,
        go_back_in_time,
        spoil_the_validation,
        lose_a_match,
    ],
)
def test_bad_data_is_one_line_and_no_run_begins(root, refused, spoil):
    refused(train(root), *spoil(root))
    assert not (root.parent / "run").exists()


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("--config.model.dimm=8", ("dimm", "defaults.py")),
        ("--config.modell.dim=8", ("modell", "defaults.py")),
        ("--config.model.dim=large", ("model.dim", "large")),
        ("--config.data.unknown_labels=ignore", ("data.unknown_labels", "'ignore'", "skip")),
        ("--config.training.batch_size=12", ("training.batch_size", "12", "8 devices")),
        ("--config.training.batch_size=800", ("training.batch_size", "800", "24 clips")),
        ("--config.optimizer.learning_rate=nan", ("optimizer.learning_rate: nan", "above 0")),
        ("--config.data.periods=(1, 1)", ("data.periods: (1, 1)", "each once")),
        ("--config.evaluation.frame_rate=0", ("evaluation.frame_rate: 0", "at least 1")),
        ("--config.evaluation.frame_rate=29.97", ("frame_rate", "29.97")),
        ("--config.training.batch_size=0", ("training.batch_size: 0", "at least 1")),
        ("--config.data.splits.valid=" + "a" * 300, ("neither a shipped split",)),
        ("--dim=8", ("--dim=8", "--config.KEY=VALUE")),
        ("dim=8", ("dim=8", "--config.KEY=VALUE")),
    ],
)
def test_a_bad_config_value_is_one_line_and_no_run_begins(root, refused, override, words):
    refused(train(root, override), *words)
    assert not (root.parent / "run").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, ("--config", "own.py", "there is no file", "configs/demo.py")),
        ("import", ("own.py", "invalid syntax")),
        ("import no_such_module", ("own.py, line 1", "no_such_module")),
        ("def get_config():\n    return {}[3]", ("line 2", "3")),
        ("def get_config():\n    return {}", ("ConfigDict",)),
        ("x = 1", ("get_config",)),
        ("import sys\nsys.exit(3)", ("line 2", "ends the program (3)")),
        ("def get_config():\n    raise SystemExit", ("line 2", "SystemExit")),
        (
            "from ml_collections import ConfigDict\nget_config = lambda: ConfigDict({'seed': 1})",
            ("config.", ": missing; ", "astra_jax.config.paper()"),
        ),
    ],
)
def test_a_config_file_with_a_fault_is_named(tmp_path, refused, text, words):
    path = tmp_path / "own.py"
    if text is not None:
        path.write_text(text)
    arguments = ["train", "--config", str(path), "--workdir", str(tmp_path / "run")]
    refused(arguments, *words)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("training.batch_size", "12"),
        ("mixup.kind", "cut"),
        ("model.encoder_layers", "9"),
        ("optimizer.warmup_epochs", "14"),
        ("data.unknown_labels", "ignore"),
    ],
)
def test_a_config_is_checked_before_matches_are_simulated(tmp_path, refused, key, value):
    config = str(HERE.parent / "configs" / "demo.py")
    arguments = ["train", "--config", config, "--workdir", str(tmp_path / "run")]
    refused([*arguments, f"--config.{key}={value}"], key)
    assert not (tmp_path / "run").exists()


def test_a_folder_that_cannot_be_made_is_one_line(root, refused):
    workdir = str(root.parent / ("a" * 300))
    refused(["train", "--config", CONFIG, "--workdir", workdir], workdir, "too long")


def test_without_a_coordinator_a_distributed_run_says_what_to_set(root, refused, monkeypatch):
    monkeypatch.setenv("JAX_NUM_PROCESSES", "2")
    words = ("--distributed", "JAX_COORDINATOR_ADDRESS", "JAX_PROCESS_ID")
    refused(train(root, "--distributed"), *words)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--workdir", "none", "--split", "test"], ("none/config.json", "--workdir")),
        (["--workdir", "broken", "--split", "test"], ("broken/config.json", "not a run's config")),
        (["--workdir", "strange", "--split", "test"], ("config.training.epoch: no such key",)),
        (["--workdir", "run", "--split", "tset"], ("tset", "text file")),
        (["--workdir", "run", "--split", "test", "--config.data.rot=x"], ("rot",)),
        (["--workdir", "run", "--split", "test"], ("best", "no checkpoint yet")),
    ],
)
def test_a_bad_evaluation_is_one_line_and_writes_nothing(
    root, refused, monkeypatch, arguments, words
):
    monkeypatch.chdir(root.parent)
    texts = {"broken": "{", "strange": '{"training": {"epoch": 3}}'}
    texts["run"] = to_json(tiny_config(root))
    for name, text in texts.items():
        Path(name).mkdir()
        Path(name, "config.json").write_text(text)
    refused(["evaluate", *arguments, "--out", "out"], *words)
    assert not Path("out").exists() and not Path("none").exists()
    assert [path.name for path in Path("run").iterdir()] == ["config.json"]
