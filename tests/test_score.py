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


def test_label_files_of_another_name_are_scored(
    folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (folders / "labels").rglob("Labels-v2.json"):
        path.rename(path.with_name("Labels-ball.json"))
    message = fails(score(folders), capsys)
    assert "Labels-v2.json" in message and "--labels-file" in message
    (folders / "list.txt").write_text(f"{FIRST}\n")
    arguments = ["--matches", str(folders / "list.txt")]
    message = fails(score(folders, *arguments), capsys)
    assert "mend --labels or --labels-file" in message and "data." not in message
    assert score(folders, "--labels-file", "Labels-ball.json") == 0
    assert capsys.readouterr().out.startswith("2 matches\n")


def test_no_error_names_a_config_key(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command has no config."""
    labels = folders / "labels" / FIRST / "Labels-v2.json"
    lists = folders / "list.json"
    lists.write_text('{"a": 1}')
    for arguments in (
        ["--matches", str(lists)],
        ["--matches", str(folders / "none.txt")],
        ["--split", "tset"],
        ["--split", "test"],
        ["--labels-file", "none.json"],
    ):
        assert "data." not in fails(score(folders, *arguments), capsys)
    for change in ({"gameTime": "12:15"}, {"position": "soon"}, {"position": "-1"}):
        labels.write_text(json.dumps({"annotations": [LABELS[0] | change]}))
        message = fails(score(folders), capsys)
        assert "data." not in message and f"{labels}: annotation 1: it" in message


def test_the_ball_tasks_metric_is_at1_at_25_frames_a_second(
    folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_results(folders / "out", {FIRST: [HIT | {"position": "10980"}], SECOND: []})
    arguments = ["--metric", "at1", "--classes", "Goal"]
    assert score(folders, *arguments) == 0
    found = capsys.readouterr().out.splitlines()
    assert found[0] == "2 matches" and ["at1", "54.55", "100.00", "0.00"] in map(str.split, found)
    assert score(folders, *arguments, "--frame-rate", "25") == 0
    found = capsys.readouterr().out.splitlines()
    assert found[0] == "2 matches, 25 frames a second"
    assert ["at1", "0.00", "0.00", "0.00"] in map(str.split, found)


def test_periods_that_do_not_count_are_left_out_with_one_line(
    folders: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    arguments = ["--metric", "at1", "--classes", "Goal"]
    # The one label of half 2 isn't found.
    for periods, value in (("1", "100.00"), ("1,2", "54.55"), ("2", "0.00"), ("2,3,1", "54.55")):
        assert score(folders, *arguments, "--periods", periods) == 0
        lines = capsys.readouterr().out.splitlines()
        assert ["at1", value] in [line.split()[:2] for line in lines]
    assert [record.getMessage() for record in caplog.records] == [
        "1 label(s) of period(s) 2 left out; --periods names those that count",
        "1 label(s) of period(s) 1 left out; --periods names those that count",
    ]


def test_labels_of_other_classes_are_left_out_with_one_line(
    folders: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    labels = folders / "labels" / FIRST / "Labels-v2.json"
    others = [LABELS[0] | {"label": name} for name in ("Save", "Shot")]
    labels.write_text(json.dumps({"annotations": [*LABELS, *others]}))
    assert score(folders) == 0
    assert score(folders, "--classes", "Goal,Save,Shot") == 0
    assert [record.getMessage() for record in caplog.records] == [
        "2 of 4 label(s) are of other classes (the first is 'Save') and left out; --classes names "
        "those that count"
    ]


def test_what_lies_beyond_two_hours_is_told(
    folders: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    late = [HIT, HIT | {"position": "9000000"}]
    write_results(folders / "out", {FIRST: late, SECOND: late[1:]})
    assert score(folders) == 0
    (record,) = caplog.records
    message = record.getMessage()
    assert f"{FIRST} (0 label(s), 1 spot(s)), {SECOND} (0 label(s), 1 spot(s))" in message
    assert "120 minutes" in message and "rows_per_second" in message


def test_another_unit_is_told_once(
    folders: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = folders / "labels" / FIRST / "Labels-v2.json"
    labels.write_text(json.dumps({"annotations": [LABELS[1] | {"position": 60}]}))
    assert score(folders) == 0
    (record,) = caplog.records
    assert "position looks like seconds" in record.getMessage()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--frame-rate", "0"], "'0', it must be a whole number from 1 to 1000"),
        (["--frame-rate", "1001"], "'1001'"),
        (["--frame-rate", "12.5"], "'12.5'"),
        (["--frame-rate", "9" * 5000], "whole number"),
        (["--periods", "1,1"], "'1,1', it must name periods from 1 to 9, each once"),
        (["--periods", "0"], "'0'"),
        (["--periods", "12"], "'12'"),
        (["--periods", ""], "''"),
    ],
)
def test_rates_and_periods_out_of_range_are_one_line(
    folders: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        score(folders, *arguments)
    assert words in fails(int(ended.value.code or 0), capsys)


def test_metrics_that_are_named_apart_are_all_scored(
    folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert score(folders, "--metric", "loose", "--metric", "at1", "tight") == 0
    out = capsys.readouterr().out
    assert "\nloose " in out and "\ntight " in out and "\nat1 " in out


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
