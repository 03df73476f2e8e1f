"""Several seeds of one config: which are asked for, what is refused, what is written of them."""

import math
import shutil
from pathlib import Path

import pytest
from helpers.tiny import TRAIN, tiny_config, write_data
from ml_collections import ConfigDict

from astra_jax.cli.main import main
from astra_jax.cli.train import default_workdir
from astra_jax.config.simulated import simulated_data, simulated_matches
from astra_jax.errors import UserError
from astra_jax.runs.seeds import Scored, parse_seeds, summarize, table, train_seeds

HERE = Path(__file__).parent
SHORT = ("--config.training.epochs=1", "--config.optimizer.warmup_epochs=0")


def command(root: Path, workdir: Path, *more: str) -> list[str]:
    config = ["--config", str(HERE / "helpers" / "tiny.py"), f"--config.data.root={root}", *SHORT]
    return ["train", *config, "--workdir", str(workdir), *more]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ("configs/demo.py", "demo"),
        ("configs/ablations.py:m4,demo", "ablations_m4_demo"),
        ("configs/ablations.py:m5,demo", "ablations_m5_demo"),
        ("mine.v2.py:../a b/c", "mine.v2_.._a_b_c"),
    ],
)
def test_the_folder_of_a_run_is_named_after_config_and_argument(config, expected):
    assert default_workdir(config) == Path("runs") / expected


# What is refused before any training


@pytest.mark.parametrize("text", ["", "1,", "a", "-1", "1.5", "1 2", "4294967296", "9" * 5000, "²"])
def test_seeds_are_whole_numbers(text):
    with pytest.raises(UserError, match="no whole number from 0 to 4294967295"):
        parse_seeds(text)


def test_seeds_are_read_and_each_is_there_once():
    assert parse_seeds("3, 0,4294967295") == [3, 0, 4294967295]
    with pytest.raises(UserError, match="1 is there twice"):
        parse_seeds("1,2,01")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--seeds", "1,1"], ("--seeds: 1 is there twice",)),
        (["--split", "valid"], ("--split", "goes with --seeds")),
        (["--seeds", "1", "--dry-run"], ("--dry-run", "leave --seeds out")),
        (["--seeds", "1", "--config.seed=2"], ("--config.seed", "leave either out")),
        (["--seeds", "1", "--split", "tset"], ("tset", "text file")),
        (["--seeds", "1", "--split", "challenge"], ("no such split", "train, valid")),
        (["--seeds", "1", "--config.data.splits.test="], ("--split test", "no such split")),
        (["--seeds", "1", "--config.data.splits.test=gone.txt"], ("gone.txt", "data.splits")),
        (["--seeds", "1", "--config.data.splits.test=bare.txt"], ("--split test", "no labels")),
        (["--seeds", "1", "--config.training.batch_size=12"], ("training.batch_size",)),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(tmp_path, capsys, flags, words):
    root = write_data(tmp_path / "data")
    shutil.copytree(root / TRAIN, root / "league" / "season" / "bare")
    (root / "league" / "season" / "bare" / "Labels-v2.json").unlink()
    (root / "bare.txt").write_text("league/season/bare\n")
    assert main(command(root, tmp_path / "run", *flags)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert [word for word in words if word not in line] == []
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("split", ["tset", "challenge"])
def test_a_split_that_is_not_there_is_found_out_before_matches_are_simulated(tmp_path, split):
    with pytest.raises(UserError, match=split):
        train_seeds(simulated_config(), [1], split, tmp_path / "run")
    assert not (tmp_path / "run").exists()


# Simulated matches


def simulated_config() -> ConfigDict:
    config = tiny_config(Path())
    config.simulation = simulated_matches()
    config.simulation.update(train_matches=1, valid_matches=1, test_matches=1, half_seconds=20)
    with config.ignore_type():
        config.data.update(simulated_data())
        config.data.root = None
    return config


def test_simulated_matches_are_written_once_for_all_seeds(tmp_path):
    roots = []

    def train(config: ConfigDict, workdir: Path, **_: object) -> None:
        roots.append(config.data.root)
        raise UserError("far enough")

    workdir = tmp_path / "run"
    for seed in (1, 2):
        with pytest.raises(UserError, match="far enough"):
            train_seeds(simulated_config(), [seed], "test", workdir, train=train)
    assert roots == [str(workdir / "matches")] * 2
    assert [path.name for path in workdir.iterdir()] == ["matches"]


# The numbers


def scored(tight: float, loose: float) -> Scored:
    per_class = {"tight": {"Goal": tight, "Foul": 0.0}, "loose": {"Goal": loose, "Foul": 1.0}}
    return Scored(4, {"tight": tight, "loose": loose}, per_class)


def test_mean_and_deviation_of_seeds_and_classes():
    # 0.2, 0.3, 0.7: mean 0.4, deviations -0.2, -0.1, 0.3, squares 0.14, over n - 1: 0.07.
    found = summarize("test", {n: scored(x, 0.5) for n, x in ((3, 0.2), (1, 0.3), (2, 0.7))})
    assert [seed["seed"] for seed in found["seeds"]] == [3, 1, 2]
    assert found["mean"]["tight"] == pytest.approx(0.4)
    assert found["standard_deviation"]["tight"] == pytest.approx(math.sqrt(0.07))
    assert found["mean"]["tight_per_class"] == {"Goal": pytest.approx(0.4), "Foul": 0.0}
    deviations = found["standard_deviation"]["tight_per_class"]
    assert deviations == {"Goal": pytest.approx(math.sqrt(0.07)), "Foul": 0.0}
    assert found["standard_deviation"]["loose"] == 0.0


def test_the_table_is_in_percent():
    two = summarize("test", {1: scored(0.62, 0.751), 2: scored(0.64, 0.755)})
    assert table(two).splitlines() == [
        "test, Average-mAP, %      tight      loose  best epoch",
        "seed 1                    62.00      75.10           4",
        "seed 2                    64.00      75.50           4",
        "mean                      63.00      75.30",
        "standard deviation         1.41       0.28",
    ]
    one = table(summarize("test", {1: scored(0.5, 0.5)}))
    assert one.splitlines()[-1].split()[-2:] == ["-", "-"]
