"""Matches of one half or four: trained, predicted and scored with what is there."""

import contextlib
import dataclasses
import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from helpers.matches import FAST, WIDE, annotation, write_labels, write_match
from helpers.runs import LINEAR, lines
from helpers.tiny import TRAIN, VALID, tiny_config, write_data
from ml_collections import ConfigDict

from astra_jax import runs
from astra_jax.cli.main import main
from astra_jax.config.classes import CLASSES
from astra_jax.data.index import read_labels
from astra_jax.data.sources import DataSpec
from astra_jax.evaluation.metrics import METRICS, average_maps
from astra_jax.formats.soccernet_results import read_predictions


def short_config(root: Path) -> ConfigDict:
    """One epoch of a stand-in for ASTRA."""
    config = tiny_config(root)
    config.training.epochs = 1
    config.optimizer.update(schedule="step", warmup_epochs=0)
    return config


def lose_half(root: Path, match: str, half: int) -> None:
    """Takes a half's files away; its labels stay."""
    for pattern in (WIDE, FAST):
        (root / match / pattern.format(half=half)).unlink()


def train_and_evaluate(config: ConfigDict, folder: Path, *overrides: str) -> dict:
    """The blocks of an evaluation in `folder/run/test`."""
    runs.train(config, folder / "run", components=LINEAR)
    return runs.evaluate(
        folder / "run", "test", folder / "run" / "test", overrides, components=LINEAR
    )


def halves_in(out: Path) -> set[str]:
    """The halves that spots of the validation match lie in."""
    return {spot["half"] for spot in read_predictions(out / "results.zip", [VALID])[VALID]}


def scores_of(root: Path, out: Path, halves: Sequence[int], **options: int) -> dict:
    """The official scores of what an evaluation wrote, by the labels of these halves alone."""
    config = tiny_config(root)
    labels = read_labels(DataSpec.from_config(config.data.to_dict()), [VALID])
    kept = {
        match: [row for row in rows if int(row["gameTime"][0]) in halves]
        for match, rows in labels.items()
    }
    predictions = read_predictions(out / "results.zip", [VALID])
    return average_maps(kept, predictions, tuple(METRICS), CLASSES, periods=halves, **options)


@contextlib.contextmanager
def logged() -> Iterator[list[str]]:
    """What the package logs meanwhile."""
    logger, found = logging.getLogger("astra_jax"), []
    handler, level = logging.Handler(), logger.level
    handler.emit = lambda record: found.append(record.getMessage())
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield found
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def count(log: Sequence[str], *words: str) -> int:
    """How many lines hold all these words."""
    return sum(all(word in line for word in words) for line in log)


@dataclasses.dataclass
class HalfRun:
    """A run whose matches have one half with files and labels of two, and what its log said."""

    root: Path
    folder: Path
    blocks: dict
    log: list[str]


@pytest.fixture(scope="module")
def half_run(tmp_path_factory: pytest.TempPathFactory) -> HalfRun:
    folder = tmp_path_factory.mktemp("half_run")
    root = write_data(folder / "data")
    lose_half(root, TRAIN, 1)
    lose_half(root, VALID, 2)
    with logged() as log:
        blocks = train_and_evaluate(short_config(root), folder)
    return HalfRun(root, folder, blocks, log)


def test_a_match_with_one_half_is_trained_and_predicted(half_run):
    (line,) = lines(half_run.folder / "run" / "metrics.jsonl")
    assert line["validation"]["score"] == half_run.blocks["tight"]["a_mAP"]
    assert halves_in(half_run.folder / "run" / "test") == {"1"}
    assert count(half_run.log, " 1 match(es), ", "clips an epoch") == 1


def test_what_has_no_files_is_told_once(half_run):
    """The index says what is left out, of training and validation; each score what it counts."""
    assert count(half_run.log, f"1 left out ({TRAIN} half 1); 13 label(s) lie in them") == 1
    assert count(half_run.log, f"1 left out ({VALID} half 2); 13 label(s) lie in them") == 1
    assert count(half_run.log, f"1 left out ({VALID} half 2)") == 2
    assert count(half_run.log, "13 of 26 label(s) lie in halves without files", "missed") == 2
    assert count(half_run.log, "masked") == 0


def test_the_official_score_counts_what_has_no_files_and_covered_does_not(half_run):
    out = half_run.folder / "run" / "test"
    covered = half_run.blocks["covered"]
    assert list(covered) == list(METRICS) and list(half_run.blocks) == [*METRICS, "covered"]
    assert half_run.blocks == scores_of(half_run.root, out, (1, 2)) | {"covered": covered}
    assert covered == scores_of(half_run.root, out, (1,))
    assert covered["loose"]["a_mAP"] > half_run.blocks["loose"]["a_mAP"] > 0
    assert json.loads((out / "metrics.json").read_text()) == half_run.blocks


def test_the_terminal_shows_both_scores_and_the_list_of_runs_the_official_ones(half_run, capsys):
    workdir, out = half_run.folder / "run", half_run.folder / "again"
    arguments = ["--workdir", str(workdir), "--split", "test", "--out", str(out)]
    parsed = ["evaluate", *arguments]
    assert main(parsed, components=LINEAR) == 0
    table = capsys.readouterr().out
    for name, blocks in (("", half_run.blocks), ("covered ", half_run.blocks["covered"])):
        for metric in ("tight", "loose"):
            (line,) = [row for row in table.splitlines() if row.startswith(f"{name}{metric}  ")]
            assert line.split()[-3] == f"{100 * blocks[metric]['a_mAP']:.2f}"
    assert table.count("per class") == 2 and "covered at1" not in table
    assert main(["runs", str(half_run.folder), "--json"]) == 0
    (run,) = json.loads(capsys.readouterr().out)
    tight, loose = (half_run.blocks[metric]["a_mAP"] for metric in ("tight", "loose"))
    assert run["scores"] == {"test": {"tight": tight, "loose": loose}} and not run["damaged"]


def test_one_recording_a_match_needs_nothing_of_a_second_half(tmp_path):
    root = write_data(tmp_path / "data")
    for match in (TRAIN, VALID):
        lose_half(root, match, 2)
        content = json.loads((root / match / "Labels-v2.json").read_text())
        rows = [row for row in content["annotations"] if row["gameTime"][0] == "1"]
        write_labels(root / match, rows)
    config = short_config(root)
    config.data.periods = (1,)
    with logged() as log:
        blocks = train_and_evaluate(config, tmp_path)
    out = tmp_path / "run" / "test"
    assert halves_in(out) == {"1"} and blocks == scores_of(root, out, (1,))
    assert json.loads((out / "metrics.json").read_text()) == blocks
    assert count(log, "halves") == count(log, "masked") == count(log, "left out") == 0


def test_extra_time_is_trained_predicted_and_scored(tmp_path):
    seconds = (120, 120, 40, 40)
    for match in (TRAIN, VALID):
        rows = [
            annotation(half, 1000 * s, CLASSES[(s + half) % 17])
            for half, of_half in enumerate(seconds, start=1)
            for s in range(3, of_half, 9)
        ]
        write_match(tmp_path / "data", match, seconds, rows, audio=False)
    for name, match in (("train", TRAIN), ("valid", VALID)):
        (tmp_path / "data" / f"{name}.txt").write_text(f"{match}\n")
    config = short_config(tmp_path / "data")
    config.data.periods = (1, 2, 3, 4)
    blocks = train_and_evaluate(config, tmp_path)
    out = tmp_path / "run" / "test"
    assert halves_in(out) == {"1", "2", "3", "4"}
    assert blocks == scores_of(tmp_path / "data", out, (1, 2, 3, 4))
    # The same run may be asked for the ordinary halves alone, and says what it leaves out.
    with logged() as log:
        ordinary = runs.evaluate(
            tmp_path / "run", "test", out, ["--config.data.periods=(1, 2)"], components=LINEAR
        )
    assert halves_in(out) == {"1", "2"} and ordinary == scores_of(tmp_path / "data", out, (1, 2))
    assert count(log, "10 label(s) of period(s) 3, 4 left out") == 1
    assert "covered" not in ordinary


def test_labels_of_other_halves_are_left_out_with_a_line_and_the_training_goes_on(tmp_path):
    root = write_data(tmp_path / "data")
    for match in (TRAIN, VALID):
        path = root / match / "Labels-v2.json"
        rows = json.loads(path.read_text())["annotations"]
        write_labels(root / match, [*rows, annotation(3, 15_000), annotation(5, 15_000)])
    with logged() as log:
        blocks = train_and_evaluate(short_config(root), tmp_path)
    # Of training, validation and evaluation.
    assert count(log, "2 label(s) of period(s) 3, 5 left out; data.periods names those") == 3
    assert blocks == scores_of(root, tmp_path / "run" / "test", (1, 2))


def test_the_frame_rate_of_the_metric_is_the_configs(tmp_path):
    root = write_data(tmp_path / "data")
    config = short_config(root)
    config.evaluation.frame_rate = 25
    blocks = train_and_evaluate(config, tmp_path)
    out = tmp_path / "run" / "test"
    assert blocks == scores_of(root, out, (1, 2), frame_rate=25)
    (line,) = lines(tmp_path / "run" / "metrics.jsonl")
    assert line["validation"]["tight"] == blocks["tight"]["a_mAP"]
    usual = runs.evaluate(
        tmp_path / "run", "test", out, ["--config.evaluation.frame_rate=2"], components=LINEAR
    )
    assert usual == scores_of(root, out, (1, 2)) and usual["tight"] != blocks["tight"]
