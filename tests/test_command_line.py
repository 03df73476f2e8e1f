"""What a user sees: the arguments of each command, and no chatter of libraries."""

import argparse
import dataclasses
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from helpers.processes import ROOT, environment, flags
from helpers.runs import LINEAR
from helpers.tiny import TRAIN, VALID, write_data

from astra_jax.cli.main import build_parser, main

CONFIG = str(Path(__file__).parent / "helpers" / "tiny.py")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_data(tmp_path / "data")


def train(root: Path, *more: str) -> list[str]:
    workdir = root.parent / "run"
    places = ["--workdir", str(workdir), f"--config.data.root={root}"]
    return ["train", "--config", CONFIG, *places, *more]


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


# Flags given twice


def all_flags() -> list[tuple[str, str, argparse.Action]]:
    """Every flag of every verb but help: the verb, the flag, what it does."""
    (verbs,) = (action for action in build_parser()._actions if action.dest == "command")
    assert isinstance(verbs.choices, dict)
    return [
        (verb, flag, action)
        for verb, parser in verbs.choices.items()
        for action in parser._actions
        for flag in action.option_strings
        if flag not in ("-h", "--help")
    ]


@pytest.mark.parametrize(
    ("verb", "flag", "action"), [pytest.param(*each, id=" ".join(each[:2])) for each in all_flags()]
)
def test_no_flag_silently_replaces_the_first(capsys, verb, flag, action):
    values = [action.choices[0] if action.choices else "1"] * (
        action.nargs if isinstance(action.nargs, int) else 1
    )
    spellings = [[flag, *values]]
    if len(values) == 1:
        spellings.append([f"{flag}={values[0]}"])
    for again in spellings:
        if "extend" in type(action).__name__.lower():
            parsed, _ = build_parser().parse_known_args([*SCORE, flag, *values, *again])
            assert getattr(parsed, action.dest) == values * 2
            continue
        with pytest.raises(SystemExit) as ended:
            main([verb, flag, *values, "x", *again])
        assert ended.value.code == 2
        out, err = capsys.readouterr()
        assert out == "" and err.startswith("error: ") and err.count("\n") == 1
        assert f"{flag}" in err and f"is given twice: give it once; see astra {verb} --help" in err


def test_config_values_given_twice_are_an_error(root, capsys):
    for values in (("1", "2"), ("1", "1")):
        overrides = [f"--config.seed={value}" for value in values]
        with pytest.raises(SystemExit) as ended:
            main(train(root, overrides[0], "--config.training.epochs=3", overrides[1]))
        assert ended.value.code == 2
        message = "error: --config.seed is given twice: give it once; see astra train --help\n"
        assert capsys.readouterr().err == message
    assert not (root.parent / "run").exists()


# What a run prints


# Runs scripts one after the other, as if each were the process's own: starting takes seconds.
RUN_SCRIPTS = """
import json, runpy, sys
for file, *arguments in json.loads(sys.argv[1]):
    sys.argv = [file, *arguments]
    try:
        runpy.run_path(file, run_name="__main__")
    except SystemExit as end:
        for stream in (sys.stdout, sys.stderr):
            print("\\nended:", end.code, file=stream, flush=True)
"""


def chatter(text: str) -> list[str]:
    """Lines that are neither the progress bar's nor empty."""
    lines = [line.strip() for line in re.split(r"[\r\n]", text)]
    return [line for line in lines if line and not re.match(r"\d+%\|", line)]


def run_scripts(
    compiled: Path, scripts: Sequence[Sequence[str]]
) -> tuple[list[list[str]], list[list[str]]]:
    """What each script, and then the end of their process, leaves on stdout and on stderr.

    The last line of a script is its exit code. JAX looks for platforms by itself, as on any
    machine.
    """
    variables = environment(compiled, XLA_FLAGS=flags(devices=1))
    del variables["JAX_PLATFORMS"]
    command = [sys.executable, "-c", RUN_SCRIPTS, json.dumps(scripts)]
    done = subprocess.run(
        command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    streams = []
    for text in (done.stdout, done.stderr):
        parts: list[list[str]] = [[]]
        for line in chatter(text):
            parts[-1].append(line)
            if line.startswith("ended: "):
                parts.append([])
        assert len(parts) == len(scripts) + 1, text
        streams.append(parts)
    return streams[0], streams[1]


def test_a_user_sees_what_is_meant_for_him_and_nothing_else(root, compiled_folder):
    path = root / TRAIN / "Labels-v2.json"
    labels = json.loads(path.read_text())
    labels["annotations"][0]["label"] = "Handball"
    path.write_text(json.dumps(labels))
    workdir, other = root.parent / "run", root.parent / "other"
    training = ["train.py", *train(root, "--config.data.unknown_labels=skip")[1:]]
    (said, at_end), (logged, at_end_logged) = run_scripts(compiled_folder, [training])
    assert [line.split(":")[0] for line in said] == ["epoch 1", "epoch 2", "epoch 3", "ended"]
    assert logged[0] == f"{path}: 1 annotation(s) with unknown labels skipped"
    assert logged[1].startswith(f"{workdir}: 9,820 parameters, 1 match(es), 24 clips an epoch")
    assert logged[2:] == ["ended: 0"] and at_end == at_end_logged == []

    # Another model: Orbax finds out in threads, whose tracebacks would follow the message.
    shutil.copytree(workdir, other)
    config = json.loads((other / "config.json").read_text())
    config["model"]["feed_forward"] = 8
    (other / "config.json").write_text(json.dumps(config))
    evaluations = [
        ["evaluate.py", "--workdir", str(run), "--split", "test", "--out", str(root.parent / "out")]
        for run in (workdir, other)
    ]
    scripts = [evaluations[0], training, evaluations[1]]
    (said, *_), (evaluated, trained, refused, at_end) = run_scripts(compiled_folder, scripts)
    assert said[0].startswith("Average-mAP, %")
    assert evaluated[0].startswith("1 match(es) predicted in ")
    assert "best checkpoint" in evaluated[0] and evaluated[1:] == ["ended: 0"]
    assert trained[0].startswith(f"{workdir}: this run is finished")
    assert trained[1:] == ["ended: 0"]
    assert "another model (decoder/layer_0/feed_forward" in refused[0]
    assert "(16,) there, (8,) in the config" in refused[0]
    assert refused[1:] == ["ended: 2"] and at_end == []


def test_an_interrupted_command_ends_without_a_traceback(root, capsys):
    def interrupted(config: object) -> None:
        raise KeyboardInterrupt

    assert main(train(root), dataclasses.replace(LINEAR, make_model=interrupted)) == 130
    assert capsys.readouterr().err == "interrupted\n"
    assert not (root.parent / "run").exists()


def test_scoring_does_not_wait_for_jax(root, tmp_path):
    results = tmp_path / "results" / VALID
    results.mkdir(parents=True)
    (results / "results_spotting.json").write_text('{"predictions": []}')
    arguments = ["score", "--labels", str(root), "--predictions", str(tmp_path / "results")]
    arguments += ["--matches", str(root / "valid.txt")]
    code = f"import sys, astra_jax.cli; c = astra_jax.cli.main({arguments!r})"
    code += "; sys.exit(c or 'jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL).returncode == 0
