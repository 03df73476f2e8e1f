"""Protocol P1: several seeds in one folder, each trained and evaluated once, and their mean."""

import dataclasses
import json
import math
import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from helpers.runs import LINEAR
from helpers.tiny import VALID, tiny_config, write_data
from ml_collections import ConfigDict

from astra_jax import runs
from astra_jax.cli.main import main
from astra_jax.config.load import override
from astra_jax.config.saved import digest, from_json
from astra_jax.errors import UserError
from astra_jax.runs.folder import RunFolder
from astra_jax.runs.listing import find_runs
from astra_jax.runs.lock import lock_folder
from astra_jax.runs.seeds import train_seeds
from astra_jax.training.loop import Trainer

HERE = Path(__file__).parent
SHORT = ("--config.training.epochs=1", "--config.optimizer.warmup_epochs=0")


@dataclass(frozen=True)
class Done:
    """Seed 1, and then seeds 2 and 1: their folder, what each call returned and trained."""

    root: Path
    workdir: Path
    first: dict
    both: dict
    trained: list[int]


class Pretence:
    """Training does nothing, evaluating scores 0.5; both note the seed, as (what, N)."""

    def __init__(self) -> None:
        self.noted: list[tuple[str, int]] = []
        self.out: Path | None = None

    def train(self, config: ConfigDict, workdir: Path, **_: object) -> dict[str, Any]:
        self.noted.append(("train", config.seed))
        return {"best_epoch": 1}

    def evaluate(self, workdir: Path, split: str, out: Path, **_: object) -> dict[str, Any]:
        self.noted.append(("evaluate", int(workdir.name.removeprefix("seed_"))))
        self.out = out
        block = {"a_mAP": 0.5, "a_mAP_per_class": {"Goal": 0.5}}
        return {"tight": block, "loose": block}

    def train_seeds(self, *args: Any) -> dict[str, Any]:
        return train_seeds(*args, train=self.train, evaluate=self.evaluate)


def short_config(root: Path) -> ConfigDict:
    config = tiny_config(root)
    config.training.epochs = 1
    config.optimizer.warmup_epochs = 0
    return config


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    folder = tmp_path_factory.mktemp("seeds")
    root, workdir = write_data(folder / "data"), folder / "runs" / "tiny"
    trained = []

    def noting(config: ConfigDict, *args: Any, **kwargs: Any) -> dict[str, Any]:
        trained.append(config.seed)
        return runs.train(config, *args, **kwargs)

    first, both = (
        train_seeds(short_config(root), seeds, "test", workdir, LINEAR, train=noting)
        for seeds in ([1], [2, 1])
    )
    return Done(root, workdir, first, both, trained)


@pytest.fixture
def copied(done: Done, tmp_path: Path) -> Path:
    """The folder of the seeds, to be changed."""
    shutil.copytree(done.workdir, tmp_path / "seeds")
    return tmp_path / "seeds"


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


def test_the_same_command_again_computes_nothing(done, copied, capsys):
    def computed(*args: object) -> None:
        raise AssertionError

    nothing = dataclasses.replace(LINEAR, make_trainer=computed, make_programs=computed)
    assert main(command(done.root, copied, "--seeds", "2,1"), nothing) == 0
    assert json.loads((copied / "seeds.json").read_text()) == done.both
    title, *rows = capsys.readouterr().out.splitlines()
    assert title.split() == ["test,", "Average-mAP,", "%", "tight", "loose", "best", "epoch"]
    assert [row[:6].strip() for row in rows] == ["seed 2", "seed 1", "mean", "standa"]


def rewrite(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def evaluate_with_other_settings(root: Path, folder: Path) -> None:
    config = override(from_json(folder / "config.json"), ["--config.inference.threshold=0.9"])
    rewrite(folder / "test" / "provenance.json", config=digest(config))


def cut_scores(root: Path, folder: Path) -> None:
    path = folder / "test" / "metrics.json"
    path.write_text(path.read_text()[:-20])


def change_labels(root: Path, folder: Path) -> None:
    path = root / VALID / "Labels-v2.json"
    content = json.loads(path.read_text())
    content["annotations"].pop()
    path.write_text(json.dumps(content))


def take_weights_of_the_same_step(root: Path, folder: Path) -> None:
    shutil.rmtree(folder / "checkpoints" / "best")
    shutil.copytree(folder.parent / "seed_2" / "checkpoints" / "best", folder / "checkpoints/best")


FAULTS: dict[str, Callable[[Path, Path], object]] = {
    "the summary is cut": lambda _, run: (run / "summary.json").write_text('{"best_epoch": 1}'),
    "its steps are infinite": lambda _, run: (run / "summary.json").write_text(
        '{"best_epoch": 1, "epochs": 1, "steps": Infinity}'
    ),
    "scores are lost": lambda _, run: (run / "test" / "metrics.json").unlink(),
    "scores are cut": cut_scores,
    "a score is lost": lambda _, run: (run / "test" / "metrics.json").write_text(
        '{"tight": {"a_mAP": 0.1}}'
    ),
    "results are lost": lambda _, run: (run / "test" / "results.zip").unlink(),
    "provenance is lost": lambda _, run: (run / "test" / "provenance.json").write_text("{}"),
    "another split": lambda _, run: rewrite(run / "test" / "provenance.json", split="valid"),
    "other settings": evaluate_with_other_settings,
    "other labels": change_labels,
    "other weights of the same step": take_weights_of_the_same_step,
}


@pytest.mark.parametrize("change", FAULTS.values(), ids=FAULTS)
def test_an_evaluation_that_is_not_of_this_is_repeated(done, copied, tmp_path, change):
    root, pretence = shutil.copytree(done.root, tmp_path / "data"), Pretence()
    found = pretence.train_seeds(short_config(root), [1], "test", copied)
    assert pretence.noted == [] and found == done.first  # the data may lie elsewhere
    change(root, copied / "seed_1")
    found = pretence.train_seeds(short_config(root), [1], "test", copied)
    assert pretence.noted == [("train", 1), ("evaluate", 1)]
    assert found["mean"]["tight"] == 0.5


def test_data_that_lie_elsewhere_and_a_list_that_changed_count_for_finished_seeds(
    done, copied, tmp_path
):
    root = shutil.copytree(done.root, tmp_path / "data")
    shutil.copytree(root / VALID, root / "league/season/E - F")
    (root / "new.txt").write_text("league/season/E - F\n")
    config = short_config(root)
    config.data.splits.test = "new.txt"
    train_seeds(config, [1], "test", copied, LINEAR)
    results = copied / "seed_1" / "test" / "results"
    assert {path.parent.name for path in results.rglob("*.json")} == {"E - F"}


def test_another_split_has_its_folder_and_the_first_one_stays(done, copied):
    path, pretence = str(done.root / "valid.txt"), Pretence()
    found = pretence.train_seeds(short_config(done.root), [1], path, copied)
    assert found["split"] == path and pretence.noted == [("train", 1), ("evaluate", 1)]
    out = pretence.out
    assert out.parent == copied / "seed_1" and out.name.endswith("data_valid.txt")
    again = Pretence()
    assert again.train_seeds(short_config(done.root), [1], "test", copied) == done.first
    assert again.noted == []


def test_the_file_is_written_after_each_seed(done, copied):
    RunFolder(copied).seeds_path.unlink()
    for seed in (1, 2):
        shutil.rmtree(copied / f"seed_{seed}" / "test")

    class Fault(Pretence):
        def train(self, config: ConfigDict, workdir: Path, **_: object) -> dict[str, Any]:
            if config.seed == 2:
                raise UserError("a fault in the second")
            return super().train(config, workdir)

    with pytest.raises(UserError, match="second"):
        Fault().train_seeds(short_config(done.root), [1, 2], "test", copied)
    found = json.loads((copied / "seeds.json").read_text())
    assert [seed["seed"] for seed in found["seeds"]] == [1]


# Signals


class ToldAtTheEnd(Trainer):
    """Gets a signal after its last step."""

    def run(self) -> Any:
        progress = super().run()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.3)
        return progress


def test_a_signal_skips_the_seeds_that_are_left(done, tmp_path, capsys):
    """It comes after the last step: too late to stop the run, and nothing comes after it."""
    workdir = tmp_path / "run"
    told = dataclasses.replace(LINEAR, make_trainer=ToldAtTheEnd)
    assert main(command(done.root, workdir, "--seeds", "1,2"), told) == 143
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


def test_a_run_and_seeds_do_not_share_a_folder(done, copied):
    with pytest.raises(UserError, match="folder of one run: choose another --workdir"):
        train_seeds(short_config(done.root), [1], "test", copied / "seed_1")
    with pytest.raises(UserError, match="runs of several seeds: give --seeds"):
        runs.train(short_config(done.root), copied)
    with pytest.raises(UserError, match="is a file"):
        train_seeds(short_config(done.root), [1], "test", copied / "seeds.json")
    with (
        lock_folder(RunFolder(copied)),
        pytest.raises(UserError, match="a run is at work in this folder"),
    ):
        train_seeds(short_config(done.root), [1], "test", copied)


def test_another_config_in_any_seeds_folder_is_found_out_first(done, copied):
    path, pretence = copied / "seed_2" / "config.json", Pretence()
    path.write_text(json.dumps(json.loads(path.read_text()) | {"seed": 7}))
    with pytest.raises(UserError, match="seed_2/config.json: the run.*another config .seed differ"):
        pretence.train_seeds(short_config(done.root), [1, 2], "test", copied)
    assert pretence.noted == []
