"""Protocol P1: several seeds in one folder, each trained and evaluated once, and their mean."""

import json
import math
import os
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from helpers.linear import put_in_place
from helpers.tiny import TRAIN, VALID, tiny_config, write_data
from ml_collections import ConfigDict

from astra_jax import runs
from astra_jax.cli.main import main
from astra_jax.cli.train import default_workdir
from astra_jax.config.load import override
from astra_jax.config.saved import digest, from_json
from astra_jax.data.simulation import writer as simulation
from astra_jax.errors import UserError
from astra_jax.runs import seeds
from astra_jax.runs.listing import find_runs
from astra_jax.runs.lock import locked
from astra_jax.runs.seeds import Scored, parse_seeds, summary, table, train_seeds
from astra_jax.training.loop import Trainer

pytestmark = pytest.mark.usefixtures("module_on_one_device", "programs_once", "linear")
HERE = Path(__file__).parent
SHORT = ("--config.training.epochs=1", "--config.optimizer.warmup_epochs=0")


@pytest.fixture(scope="module")
def linear() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        put_in_place(patch)
        yield


@dataclass(frozen=True)
class Done:
    """Seed 1, and then seeds 2 and 1: their folder, what each call returned and trained."""

    root: Path
    workdir: Path
    first: dict
    both: dict
    trained: list[int]


def short_config(root: Path) -> ConfigDict:
    config = tiny_config(root)
    config.training.epochs = 1
    config.optimizer.warmup_epochs = 0
    return config


@pytest.fixture(scope="module")
def done(
    tmp_path_factory: pytest.TempPathFactory,
    module_on_one_device: None,
    programs_once: None,
    linear: None,
) -> Done:
    folder = tmp_path_factory.mktemp("seeds")
    root, workdir = write_data(folder / "data"), folder / "runs" / "tiny"
    trained, train_epoch = [], Trainer._train_epoch

    def noting(trainer: Trainer, *args: Any) -> None:
        trained.append(trainer.config.seed)
        train_epoch(trainer, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_train_epoch", noting)
        first = train_seeds(short_config(root), [1], "test", workdir)
        both = train_seeds(short_config(root), [2, 1], "test", workdir)
    return Done(root, workdir, first, both, trained)


@pytest.fixture
def copied(done: Done, tmp_path: Path) -> Path:
    """The folder of the seeds, to be changed."""
    shutil.copytree(done.workdir, tmp_path / "seeds")
    return tmp_path / "seeds"


@pytest.fixture
def nothing_computes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, int]]]:
    """Training does nothing, evaluating scores 0.5; both note the seed, as (what, N)."""
    noted: list[tuple[str, int]] = []

    def train(config: ConfigDict, workdir: Path, at_once: Any) -> dict[str, Any]:
        noted.append(("train", config.seed))
        return {"best_epoch": 1}

    def evaluate(workdir: Path, split: str, out: Path) -> dict[str, Any]:
        noted.append(("evaluate", int(workdir.name.removeprefix("seed_"))))
        block = {"a_mAP": 0.5, "a_mAP_per_class": {"Goal": 0.5}}
        return {"tight": block, "loose": block}

    monkeypatch.setattr(runs, "train", train)
    monkeypatch.setattr(runs, "evaluate", evaluate)
    yield noted


def metrics(workdir: Path, seed: int) -> dict[str, Any]:
    return json.loads((workdir / f"seed_{seed}" / "test" / "metrics.json").read_text())


def command(root: Path, workdir: Path, *more: str) -> list[str]:
    config = ["--config", str(HERE / "helpers" / "tiny.py"), f"--config.data.root={root}", *SHORT]
    return ["train", *config, "--workdir", str(workdir), *more]


# What is done, and what is not done again


def test_a_seed_that_is_added_is_trained_and_the_others_are_not_again(done):
    assert done.trained == [1, 2]
    assert [seed["seed"] for seed in done.both["seeds"]] == [2, 1]
    assert done.both["seeds"][1] == done.first["seeds"][0]


def test_each_seed_has_its_run_and_its_evaluation(done):
    assert {path.name for path in done.workdir.iterdir()} == {"seed_1", "seed_2", "seeds.json"}
    for seed in (1, 2):
        folder = done.workdir / f"seed_{seed}"
        assert json.loads((folder / "config.json").read_text())["seed"] == seed
        names = {path.name for path in (folder / "test").iterdir()}
        assert names == {"results", "results.zip", "metrics.json", "provenance.json"}
    of_1, of_2 = (done.workdir / f"seed_{n}" / "test" / "results.zip" for n in (1, 2))
    assert of_1.read_bytes() != of_2.read_bytes()


def test_the_file_tells_each_seeds_scores_their_mean_and_deviation(done):
    assert json.loads((done.workdir / "seeds.json").read_text()) == done.both
    blocks = [metrics(done.workdir, seed) for seed in (2, 1)]
    for metric in ("tight", "loose"):
        a, b = (block[metric]["a_mAP"] for block in blocks)
        assert [seed[metric] for seed in done.both["seeds"]] == [a, b]
        assert done.both["mean"][metric] == pytest.approx((a + b) / 2)
        # Of two: the root of ((a - m)^2 + (b - m)^2) / (2 - 1).
        deviation = done.both["standard_deviation"][metric]
        assert deviation == pytest.approx(abs(a - b) / math.sqrt(2))
    assert all(seed["best_epoch"] == 1 for seed in done.both["seeds"])
    assert done.first["standard_deviation"]["tight"] is None


def test_the_same_command_again_computes_nothing(done, copied, monkeypatch, capsys):
    def computed(*args: object) -> None:
        raise AssertionError

    monkeypatch.setattr(Trainer, "_train_epoch", computed)
    monkeypatch.setattr(runs.Predictor, "spots", computed)
    assert main(command(done.root, copied, "--seeds", "2,1")) == 0
    assert json.loads((copied / "seeds.json").read_text()) == done.both
    title, *rows = capsys.readouterr().out.splitlines()
    assert title.split() == ["test,", "Average-mAP,", "%", "tight", "loose", "best", "epoch"]
    assert [row[:6].strip() for row in rows] == ["seed 2", "seed 1", "mean", "standa"]


def cut_summary(root: Path, folder: Path) -> None:
    (folder / "summary.json").write_text('{"best_epoch": 1}')


def lose_scores(root: Path, folder: Path) -> None:
    (folder / "test" / "metrics.json").unlink()


def cut_scores(root: Path, folder: Path) -> None:
    path = folder / "test" / "metrics.json"
    path.write_text(path.read_text()[:-20])


def lose_a_score(root: Path, folder: Path) -> None:
    (folder / "test" / "metrics.json").write_text('{"tight": {"a_mAP": 0.1}}')


def lose_results(root: Path, folder: Path) -> None:
    (folder / "test" / "results.zip").unlink()


def lose_provenance(root: Path, folder: Path) -> None:
    (folder / "test" / "provenance.json").write_text("{}")


def evaluate_another_split(root: Path, folder: Path) -> None:
    path = folder / "test" / "provenance.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"split": "valid"}))


def evaluate_with_other_settings(root: Path, folder: Path) -> None:
    config = override(from_json(folder / "config.json"), ["--config.inference.threshold=0.9"])
    path = folder / "test" / "provenance.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"config": digest(config)}))


def score_with_infinite_steps(root: Path, folder: Path) -> None:
    (folder / "summary.json").write_text('{"best_epoch": 1, "epochs": 1, "steps": Infinity}')


def change_labels(root: Path, folder: Path) -> None:
    path = root / VALID / "Labels-v2.json"
    content = json.loads(path.read_text())
    content["annotations"].pop()
    path.write_text(json.dumps(content))


def take_weights_of_the_same_step(root: Path, folder: Path) -> None:
    shutil.rmtree(folder / "checkpoints" / "best")
    shutil.copytree(folder.parent / "seed_2" / "checkpoints" / "best", folder / "checkpoints/best")


@pytest.mark.parametrize(
    "change",
    [
        cut_summary,
        lose_scores,
        cut_scores,
        lose_a_score,
        lose_results,
        lose_provenance,
        evaluate_another_split,
        evaluate_with_other_settings,
        score_with_infinite_steps,
        change_labels,
        take_weights_of_the_same_step,
    ],
)
def test_an_evaluation_that_is_not_of_this_is_repeated(
    done, copied, tmp_path, nothing_computes, change
):
    root = shutil.copytree(done.root, tmp_path / "data")
    found = train_seeds(short_config(root), [1], "test", copied)
    assert nothing_computes == [] and found == done.first  # the data may lie elsewhere
    change(root, copied / "seed_1")
    found = train_seeds(short_config(root), [1], "test", copied)
    assert nothing_computes == [("train", 1), ("evaluate", 1)]
    assert found["mean"]["tight"] == 0.5


def test_data_that_lie_elsewhere_and_a_list_that_changed_count_for_finished_seeds(
    done, copied, tmp_path
):
    root = shutil.copytree(done.root, tmp_path / "data")
    shutil.copytree(root / VALID, root / "league/season/E - F")
    (root / "new.txt").write_text("league/season/E - F\n")
    config = short_config(root)
    config.data.splits.test = "new.txt"
    train_seeds(config, [1], "test", copied)
    results = copied / "seed_1" / "test" / "results"
    assert {path.parent.name for path in results.rglob("*.json")} == {"E - F"}


def test_another_split_has_its_folder_and_the_first_one_stays(done, copied, nothing_computes):
    path = str(done.root / "valid.txt")
    evaluated = []
    runs_evaluate = runs.evaluate

    def noting(workdir: Path, split: str, out: Path) -> dict[str, Any]:
        evaluated.append(out)
        return runs_evaluate(workdir, split, out)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "evaluate", noting)
        assert train_seeds(short_config(done.root), [1], path, copied)["split"] == path
    (out,) = evaluated
    assert out.parent == copied / "seed_1" and out.name.endswith("data_valid.txt")
    nothing_computes.clear()
    assert train_seeds(short_config(done.root), [1], "test", copied) == done.first
    assert nothing_computes == []


def test_the_file_is_written_behind_each_seed(done, copied, nothing_computes, monkeypatch):
    (copied / "seeds.json").unlink()
    for seed in (1, 2):
        shutil.rmtree(copied / f"seed_{seed}" / "test")

    def train(config: ConfigDict, workdir: Path, at_once: Any) -> dict[str, Any]:
        if config.seed == 2:
            raise UserError("a fault in the second")
        return {"best_epoch": 1}

    monkeypatch.setattr(runs, "train", train)
    with pytest.raises(UserError, match="second"):
        train_seeds(short_config(done.root), [1, 2], "test", copied)
    found = json.loads((copied / "seeds.json").read_text())
    assert [seed["seed"] for seed in found["seeds"]] == [1]


# Signals


def test_a_signal_skips_the_seeds_that_are_left(done, tmp_path, monkeypatch, capsys):
    """It comes behind the last step: too late to stop the run, and nothing comes after it."""
    workdir = tmp_path / "run"
    write_down = runs._summary

    def told(trainer: Trainer) -> dict[str, Any]:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.3)
        return write_down(trainer)

    with monkeypatch.context() as patch:
        patch.setattr(runs, "_summary", told)
        assert main(command(done.root, workdir, "--seeds", "1,2")) == 143
    assert "ended by SIGTERM: the same command again" in capsys.readouterr().err
    assert {path.name for path in workdir.iterdir()} == {"seed_1"}
    assert (workdir / "seed_1" / "summary.json").is_file()
    assert not (workdir / "seed_1" / "test").exists()


# Folders


def test_runs_of_seeds_are_listed_each_with_its_scores(done):
    listed = find_runs(done.workdir.parent)
    assert [(run.name, run.state) for run in listed] == [
        ("tiny/seed_1", "finished"),
        ("tiny/seed_2", "finished"),
    ]
    assert listed[0].scores["test"]["tight"] == metrics(done.workdir, 1)["tight"]["a_mAP"]


def test_simulated_matches_are_written_once_for_all_seeds(tmp_path, monkeypatch):
    roots = []

    def train(config: ConfigDict, workdir: Path, at_once: Any) -> dict[str, Any]:
        roots.append(config.data.root)
        raise UserError("far enough")

    monkeypatch.setattr(runs, "train", train)
    workdir = tmp_path / "run"
    for seed in (1, 2):
        with pytest.raises(UserError, match="far enough"):
            train_seeds(simulated_config(), [seed], "test", workdir)
    assert roots == [str(workdir / "matches")] * 2
    assert [path.name for path in workdir.iterdir()] == ["matches"]


def simulated_config() -> ConfigDict:
    config = tiny_config(Path())
    config.simulation = simulation.default_config()
    config.simulation.update(train_matches=1, valid_matches=1, test_matches=1, half_seconds=20)
    with config.ignore_type():
        config.data.update(simulation.data_config())
        config.data.root = None
    return config


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


def test_a_run_and_seeds_do_not_share_a_folder(done, copied):
    with pytest.raises(UserError, match="folder of one run: choose another --workdir"):
        train_seeds(short_config(done.root), [1], "test", copied / "seed_1")
    with pytest.raises(UserError, match="runs of several seeds: give --seeds"):
        runs.train(short_config(done.root), copied)
    with pytest.raises(UserError, match="is a file"):
        train_seeds(short_config(done.root), [1], "test", copied / "seeds.json")
    with locked(copied), pytest.raises(UserError, match="a run is at work in this folder"):
        train_seeds(short_config(done.root), [1], "test", copied)


def test_another_config_in_any_seeds_folder_is_found_out_first(done, copied, nothing_computes):
    path = copied / "seed_2" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"seed": 7}))
    with pytest.raises(UserError, match="seed_2/config.json: the run.*another config .seed differ"):
        train_seeds(short_config(done.root), [1, 2], "test", copied)
    assert nothing_computes == []


# The numbers


def scored(tight: float, loose: float) -> Scored:
    per_class = {"tight": {"Goal": tight, "Foul": 0.0}, "loose": {"Goal": loose, "Foul": 1.0}}
    return Scored(4, {"tight": tight, "loose": loose}, per_class)


def test_mean_and_deviation_of_seeds_and_classes():
    # 0.2, 0.3, 0.7: mean 0.4, deviations -0.2, -0.1, 0.3, squares 0.14, over n - 1: 0.07.
    found = summary("test", {n: scored(x, 0.5) for n, x in ((3, 0.2), (1, 0.3), (2, 0.7))})
    assert [seed["seed"] for seed in found["seeds"]] == [3, 1, 2]
    assert found["mean"]["tight"] == pytest.approx(0.4)
    assert found["standard_deviation"]["tight"] == pytest.approx(math.sqrt(0.07))
    assert found["mean"]["tight_per_class"] == {"Goal": pytest.approx(0.4), "Foul": 0.0}
    deviations = found["standard_deviation"]["tight_per_class"]
    assert deviations == {"Goal": pytest.approx(math.sqrt(0.07)), "Foul": 0.0}
    assert found["standard_deviation"]["loose"] == 0.0
    assert seeds.FILE_NAME == "seeds.json"


def test_the_table_is_in_percent():
    two = summary("test", {1: scored(0.62, 0.751), 2: scored(0.64, 0.755)})
    assert table(two).splitlines() == [
        "test, Average-mAP, %      tight      loose best epoch",
        "seed 1                    62.00      75.10          4",
        "seed 2                    64.00      75.50          4",
        "mean                      63.00      75.30",
        "standard deviation         1.41       0.28",
    ]
    assert table(summary("test", {1: scored(0.5, 0.5)})).splitlines()[-1].split()[-2:] == ["-", "-"]
