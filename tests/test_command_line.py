"""What a user sees: one line and exit code 2 for every mistake, and no chatter of libraries."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.matches import WIDE
from helpers.tiny import TRAIN, VALID, write_data

from astra_jax.cli.main import main

pytestmark = pytest.mark.usefixtures("compile_once")
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


# Arguments


SCORE = ["score", "--labels", "x", "--predictions", "y"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ("COMMAND", "see astra --help")),
        (["trian"], ("'trian'", "train", "see astra --help")),
        (["train"], ("--config", "see astra train --help")),
        (["train", "--config"], ("--config", "expected one argument", "see astra train --help")),
        (["score"], ("--labels, --predictions", "see astra score --help")),
        ([*SCORE[:3], "--lables", "x"], ("--predictions", "see astra score --help")),
        (["evaluate", "--split", "test"], ("--workdir, --out", "see astra evaluate --help")),
        ([*SCORE, "--metric", "tihgt"], ("'tihgt'", "'tight'", "see astra score --help")),
        ([*SCORE, "--metric", "two\nlines"], ("--metric", "see astra score --help")),
        ([*SCORE, "--split", "a", "--matches", "b"], ("not allowed", "see astra score --help")),
        ([*SCORE, "--bogus"], ("--bogus", "see astra score --help")),
    ],
)
def test_a_mistake_in_the_arguments_is_one_line(capsys, arguments, words):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1, err
    assert [word for word in words if word not in err] == [], err


@pytest.mark.parametrize("command", ["train", "evaluate", "score", "import-torch"])
def test_the_help_of_a_command_explains_every_argument(capsys, command):
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    options = text.partition("options:\n")[2].partition("example:\n")[0]
    for option in re.split(r"\n(?=  -)", options.rstrip()):
        flags, *meaning = re.split(r" {2,}|\n +", option.strip())
        assert meaning, f"{flags} is not explained"


# Bad input; what each file's reader says in detail is tested with the reader


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


def play_a_third_half(root: Path) -> tuple[str, ...]:
    path = change_label(root, gameTime="3 - 00:10")
    return (str(path), "annotation 1", "must be 1 or 2")


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
        play_a_third_half,
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
            ("config.", ": missing; ", "defaults.py"),
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
    from helpers.tiny import tiny_config

    from astra_jax.config.saved import to_json

    monkeypatch.chdir(root.parent)
    texts = {"broken": "{", "strange": '{"training": {"epoch": 3}}'}
    texts["run"] = to_json(tiny_config(root))
    for name, text in texts.items():
        Path(name).mkdir()
        Path(name, "config.json").write_text(text)
    refused(["evaluate", *arguments, "--out", "out"], *words)
    assert not Path("out").exists() and not Path("none").exists()
    assert [path.name for path in Path("run").iterdir()] == ["config.json"]


# What a run prints


def chatter(text: str) -> list[str]:
    """Lines that are neither the progress bar's nor empty."""
    lines = [line.strip() for line in re.split(r"[\r\n]", text)]
    return [line for line in lines if line and not re.match(r"\d+%\|", line)]


def test_a_user_sees_what_is_meant_for_him_and_nothing_else(root, compiled_folder):
    """In processes of their own, whose platforms JAX looks for by itself, as on any machine."""
    path = change_label(root, label="Handball")
    workdir, out = root.parent / "run", root.parent / "out"
    environment = {key: os.environ[key] for key in os.environ if key != "JAX_PLATFORMS"} | {
        "JAX_COMPILATION_CACHE_DIR": str(compiled_folder),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
        "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)]),
    }

    def script(*arguments: str, code: int = 0) -> tuple[list[str], list[str]]:
        command = [sys.executable, *arguments]
        done = subprocess.run(
            command, cwd=HERE.parent, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == code, done.stderr
        return chatter(done.stdout), chatter(done.stderr)

    skipped = "--config.data.unknown_labels=skip"
    said, logged = script("train.py", *train(root, skipped)[1:])
    assert [line.split(":")[0] for line in said] == ["epoch 1", "epoch 2", "epoch 3"]
    assert logged[0] == f"{path}: 1 annotation(s) with unknown labels skipped"
    assert logged[1].startswith(f"{workdir}: 9,820 parameters, 1 match(es), 24 clips an epoch")
    assert len(logged) == 2, logged
    arguments = ["--workdir", str(workdir), "--split", "test", "--out", str(out)]
    said, logged = script("evaluate.py", *arguments)
    assert said[0].startswith("Average-mAP, %") and len(logged) == 1, logged
    assert logged[0].startswith("1 match(es) predicted in ") and "best checkpoint" in logged[0]
    _, logged = script("train.py", *train(root, skipped)[1:])
    assert logged[1].startswith(f"{workdir}: this run is finished") and len(logged) == 2
    # Another model: Orbax finds out in threads, whose tracebacks would follow the message.
    config = json.loads((workdir / "config.json").read_text())
    config["model"]["feed_forward"] = 8
    (workdir / "config.json").write_text(json.dumps(config))
    _, logged = script("evaluate.py", *arguments, code=2)
    assert len(logged) == 1 and "another model (decoder/layer_0/feed_forward" in logged[0], logged
    assert "(16,) there, (8,) in the config" in logged[0]


def test_an_interrupted_command_ends_without_a_traceback(root, monkeypatch, capsys):
    from astra_jax import runs

    def interrupted(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "train", interrupted)
    assert main(train(root)) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_scoring_does_not_wait_for_jax(root, tmp_path):
    results = tmp_path / "results" / VALID
    results.mkdir(parents=True)
    (results / "results_spotting.json").write_text('{"predictions": []}')
    arguments = ["score", "--labels", str(root), "--predictions", str(tmp_path / "results")]
    arguments += ["--matches", str(root / "valid.txt")]
    code = f"import sys, astra_jax.cli; c = astra_jax.cli.main({arguments!r})"
    code += "; sys.exit(c or 'jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL).returncode == 0
