"""`astra score`: what it prints and writes, and how it fails."""

import json
from pathlib import Path
from typing import Any

import pytest

from astra_jax.cli.main import main
from astra_jax.data.splits import load_split
from astra_jax.evaluation.metrics import METRICS, average_maps
from astra_jax.evaluation.table import score_table
from astra_jax.formats.soccernet_results import write_results

FIRST, SECOND = "league/season/first", "league/season/second"
LABELS: list[dict[str, Any]] = [
    {"gameTime": "1 - 00:10", "label": "Goal", "position": "10000", "visibility": "visible"},
    {"gameTime": "2 - 01:00", "label": "Goal", "position": "60000", "visibility": "not shown"},
]
HIT = {"gameTime": "1 - 0:10", "label": "Goal", "position": "10500", "half": "1"} | {
    "confidence": "0.9"
}
MISS = HIT | {"position": "90000", "half": "2", "confidence": "0.5"}


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Two labelled matches; predictions for both, the second empty."""
    for match in (FIRST, SECOND):
        (tmp_path / "labels" / match).mkdir(parents=True)
        content = {"UrlLocal": match, "annotations": LABELS if match == FIRST else []}
        (tmp_path / "labels" / match / "Labels-v2.json").write_text(json.dumps(content))
    write_results(tmp_path / "out", {FIRST: [HIT, MISS], SECOND: []})
    return tmp_path


def score(root: Path, *more: str, predictions: str = "out/results") -> int:
    labels, results = str(root / "labels"), str(root / predictions)
    return main(["score", "--labels", labels, "--predictions", results, *more])


def fails(code: int, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of an error with exit code 2."""
    captured = capsys.readouterr()
    assert code == 2
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("error: ")
    return captured.err


@pytest.mark.parametrize("predictions", ["out/results", "out/results.zip"])
def test_folder_and_zip_are_scored_over_every_labelled_match(
    folders: Path, predictions: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert score(folders, "--metric", "at1", "tight", predictions=predictions) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "2 matches"
    # Recall 1/2 at precision 1: 6 of 11 levels, over 17 classes; on screen all is found.
    assert ["at1", "3.21", "5.88", "0.00"] in [line.split() for line in lines]
    assert ["Goal", "54.55", "100.00", "0.00"] in [line.split() for line in lines]
    assert any(line.startswith("tight per class") for line in lines)
    assert not any("loose" in line for line in lines)


def test_tight_and_loose_are_the_default(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert score(folders) == 0
    out = capsys.readouterr().out
    assert "\ntight " in out and "\nloose " in out and "\nat1 " not in out


def test_the_json_holds_the_blocks_of_metrics_json(folders: Path) -> None:
    file = folders / "new" / "scores.json"
    assert score(folders, "--json", str(file), "--metric", *METRICS) == 0
    blocks = json.loads(file.read_text())
    assert blocks == average_maps({FIRST: LABELS}, {FIRST: [HIT, MISS]})
    assert list(blocks) == list(METRICS)


def test_a_list_of_matches_limits_the_score(
    folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folders / "list.txt").write_text(f"{FIRST}\n")
    assert score(folders, "--matches", str(folders / "list.txt")) == 0
    assert capsys.readouterr().out.startswith("1 match\n")


def test_a_split_needs_its_labels(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = fails(score(folders, "--split", "test"), capsys)
    assert load_split("test")[0] in message and "Labels-v2.json" in message


def test_a_match_without_predictions_is_an_error(
    folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_results(folders / "out", {FIRST: [HIT]})
    assert f"{SECOND}/results_spotting.json" in fails(score(folders), capsys)
    message = fails(score(folders, predictions="out/results.zip"), capsys)
    assert f"{SECOND}/results_spotting.json" in message


def test_mistakes_in_the_arguments_are_one_line(
    folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "nowhere" in fails(score(folders, predictions="nowhere"), capsys)
    assert "none.txt" in fails(score(folders, "--matches", str(folders / "none.txt")), capsys)
    assert "mend --json" in fails(score(folders, "--json", str(folders / "labels")), capsys)
    missing = str(folders / "missing")
    arguments = ["score", "--labels", missing, "--predictions", str(folders / "out" / "results")]
    assert "no such folder of labels" in fails(main(arguments), capsys)
    arguments[2] = str(folders / "out")
    assert "holds no league/season/match/Labels-v2.json" in fails(main(arguments), capsys)


def test_a_missing_list_names_its_option(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("--matches", "--split"):
        message = fails(score(folders, option, "none.txt"), capsys)
        assert message.endswith(f"mend {option}\n") and "data.splits" not in message


def rename_goals(root: Path, name: str) -> None:
    """Goals become another class, in labels and predictions."""
    for path in (*root.rglob("Labels-v2.json"), *root.rglob("results_spotting.json")):
        path.write_text(path.read_text().replace("Goal", name))


def test_other_classes_are_scored_where_they_are_named(
    folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rename_goals(folders, "PASS")
    message = fails(score(folders), capsys)
    assert "none of its 2 label(s)" in message and "'PASS'" in message and "--classes" in message
    assert score(folders, "--classes", "DRIVE, PASS", "--metric", "at1") == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["DRIVE", "0.00", "0.00", "0.00"] in lines and [
        "PASS",
        "54.55",
        "100.00",
        "0.00",
    ] in lines


def test_predictions_of_no_known_class_are_an_error(
    folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rename_goals(folders / "out", "PASS")
    message = fails(score(folders), capsys)
    assert str(folders / "out" / "results") in message and "'PASS'" in message


@pytest.mark.parametrize("classes", ["", "A,,B", "A,B,A"])
def test_a_class_list_with_a_fault_is_named(
    folders: Path, capsys: pytest.CaptureFixture[str], classes: str
) -> None:
    assert "--classes" in fails(score(folders, "--classes", classes), capsys)


def test_broken_files_are_named(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = folders / "labels" / FIRST / "Labels-v2.json"
    results = folders / "out" / "results" / FIRST / "results_spotting.json"
    results.write_text("{")
    message = fails(score(folders), capsys)
    assert str(results) in message and "broken JSON" in message
    labels.write_text("[1,")
    assert str(labels) in fails(score(folders), capsys)


def test_nothing_is_written_when_the_score_fails(
    folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folders / "out" / "results" / FIRST / "results_spotting.json").unlink()
    file = folders / "new" / "scores.json"
    fails(score(folders, "--json", str(file)), capsys)
    assert not file.parent.exists()


def test_arguments_that_score_does_not_know_are_refused(folders: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        score(folders, "--config.seed=1")
    assert caught.value.code == 2


def test_the_table_fits_long_class_names() -> None:
    name = "A class with a rather long name"
    block: dict[str, Any] = {}
    for subset in ("", "_visible", "_unshown"):
        block |= {f"a_mAP{subset}": 0.5, f"a_mAP_per_class{subset}": {name: 1.0}}
    lines = score_table({"tight": block}).splitlines()
    assert lines[1].split() == ["tight", "50.00", "50.00", "50.00"]
    assert lines[-1] == name + "     100.00" * 3
    assert len(lines[1]) == len(lines[-1])
