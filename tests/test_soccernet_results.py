"""Results files: what is written, what is read back, what is refused."""

import json
import math
import unicodedata
import zipfile
from pathlib import Path
from typing import Any

import pytest

from astra_jax.errors import UserError
from astra_jax.formats import soccernet_results as results
from astra_jax.formats.soccernet_results import parse_prediction, read_predictions, write_results

MATCH = "league/2015-2016/2015-08-29 - 17-00 Málaga 1 - 0 Ibiza"
OTHER = "league/2015-2016/other"
NAME = f"{MATCH}/results_spotting.json"
GOOD = {
    "gameTime": "1 - 0:31",
    "label": "Goal",
    "position": "31500",
    "half": "1",
    "confidence": "0.5",
}


def test_folder_and_zip_hold_the_same_files_and_read_back_alike(tmp_path: Path) -> None:
    predictions = {MATCH: [GOOD], OTHER: []}
    write_results(tmp_path / "out", predictions)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["results", "results.zip"]
    file = tmp_path / "out" / "results" / MATCH / "results_spotting.json"
    assert json.loads(file.read_text(encoding="utf-8")) == {
        "UrlLocal": MATCH,
        "predictions": [GOOD],
    }
    with zipfile.ZipFile(tmp_path / "out" / "results.zip") as archive:
        assert archive.namelist() == [
            f"{MATCH}/results_spotting.json",
            f"{OTHER}/results_spotting.json",
        ]
        assert archive.read(f"{MATCH}/results_spotting.json") == file.read_bytes()
    for source in ("results", "results.zip"):
        assert read_predictions(tmp_path / "out" / source, [MATCH, OTHER]) == predictions


def test_the_same_predictions_give_the_same_bytes_in_any_order(tmp_path: Path) -> None:
    write_results(tmp_path / "a", {MATCH: [GOOD], OTHER: []})
    write_results(tmp_path / "b", {OTHER: [], MATCH: [GOOD]})
    first = (tmp_path / "a" / "results.zip").read_bytes()
    assert first == (tmp_path / "b" / "results.zip").read_bytes()


def test_earlier_results_are_replaced_as_a_whole(tmp_path: Path) -> None:
    write_results(tmp_path, {MATCH: [GOOD]})
    write_results(tmp_path, {OTHER: [GOOD]})
    assert not (tmp_path / "results" / MATCH).exists()
    assert (tmp_path / "results" / OTHER / "results_spotting.json").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results", "results.zip"]


def test_a_folder_with_anything_else_in_it_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match=r"thesis\.tex"):
        write_results(tmp_path, {MATCH: [GOOD]})
    assert (tmp_path / "results" / "thesis.tex").read_text() == "years of work"
    assert not (tmp_path / "results.zip").exists()


@pytest.mark.parametrize(
    ("where", "writing"),
    [(Path, "write_bytes"), (results, "write_atomically")],
    ids=["before the folder", "before the zip"],
)
def test_a_disk_that_is_full_leaves_the_earlier_results_no_scraps_and_says_how_to_mend_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: Any, writing: str
) -> None:
    write_results(tmp_path, {MATCH: [GOOD]})
    before = (tmp_path / "results.zip").read_bytes()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(where, writing, full)
    with pytest.raises(UserError, match="No space left.*free some space"):
        write_results(tmp_path, {OTHER: [GOOD]})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results", "results.zip"]
    assert (tmp_path / "results" / MATCH / "results_spotting.json").exists()
    assert (tmp_path / "results.zip").read_bytes() == before


@pytest.mark.parametrize("match", ["../escape", "/absolute/match", "a/../../b", "a\\b", ""])
def test_match_names_that_climb_are_refused(tmp_path: Path, match: str) -> None:
    out = tmp_path / "out"
    with pytest.raises(UserError, match="league/season/match"):
        write_results(out, {match: [GOOD]})
    assert not out.exists()
    write_results(out, {MATCH: [GOOD]})
    for source in ("results", "results.zip"):
        with pytest.raises(UserError, match="league/season/match"):
            read_predictions(out / source, [match])


def test_hostile_names_in_a_zip_are_never_followed(tmp_path: Path) -> None:
    path = tmp_path / "results.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../evil.json", "{}")
        archive.writestr("/tmp/evil.json", "{}")
        archive.writestr(f"{MATCH}/results_spotting.json", json.dumps({"predictions": [GOOD]}))
    assert read_predictions(path, [MATCH]) == {MATCH: [GOOD]}
    assert list(tmp_path.iterdir()) == [path]


def taken_apart(name: str) -> str:
    """Letters and accents as characters of their own, as macOS writes them."""
    return unicodedata.normalize("NFD", name)


@pytest.mark.parametrize(
    "spelt",
    [
        NAME.replace("/", "\\"),
        f"./{NAME}",
        ".\\" + NAME.replace("/", "\\"),
        taken_apart(NAME),
        NAME.encode(),
        taken_apart(NAME).replace("/", "\\").encode(),
    ],
)
@pytest.mark.parametrize("match", [MATCH, taken_apart(MATCH)])
def test_names_in_a_zip_are_read_as_other_systems_write_them(
    tmp_path: Path, spelt: str | bytes, match: str
) -> None:
    path = tmp_path / "results.zip"
    # Bytes: a name without the flag that says it is UTF-8, which zipfile doesn't write.
    name = spelt if isinstance(spelt, str) else "x" * len(spelt)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, json.dumps({"predictions": [GOOD]}))
    if isinstance(spelt, bytes):
        path.write_bytes(path.read_bytes().replace(name.encode(), spelt))
    assert read_predictions(path, [match]) == {match: [GOOD]}


def test_a_zip_with_names_in_the_alphabet_of_dos_is_read(tmp_path: Path) -> None:
    path, raw = tmp_path / "results.zip", NAME.encode("cp437")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x" * len(raw), json.dumps({"predictions": [GOOD]}))
    path.write_bytes(path.read_bytes().replace(b"x" * len(raw), raw))
    assert read_predictions(path, [MATCH]) == {MATCH: [GOOD]}


def write_raw(root: Path, data: bytes, packed: bool) -> Path:
    """A results folder or zip whose only file holds `data`."""
    if packed:
        with zipfile.ZipFile(root / "results.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(f"{MATCH}/results_spotting.json", data)
        return root / "results.zip"
    file = root / "results" / MATCH / "results_spotting.json"
    file.parent.mkdir(parents=True)
    file.write_bytes(data)
    return root / "results"


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "broken JSON"),
        (b'{"predictions": [', "broken JSON"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b"[]", 'no list "predictions"'),
        (b"[" * 100_000, "broken JSON"),
        (b'{"predictions": ' + b"9" * 5000 + b"}", "broken JSON"),
        (b'{"predictions": {}}', 'no list "predictions"'),
        (b'{"predictions": ["goal"]}', "prediction 1: it is no object"),
    ],
)
def test_broken_files_are_named(tmp_path: Path, data: bytes, complaint: str, packed: bool) -> None:
    path = write_raw(tmp_path, data, packed)
    with pytest.raises(UserError) as caught:
        read_predictions(path, [MATCH])
    assert complaint in str(caught.value)
    assert f"{MATCH}/results_spotting.json" in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        ("position", "soon", "\"position\" is 'soon', not a whole number"),
        ("position", "1.5", "\"position\" is '1.5', not a whole number"),
        ("position", "9" * 5000, "\"position\" is '999999999999...9999999999999'"),
        ("half", None, '"half" is None, not a whole number'),
        ("confidence", "high", "\"confidence\" is 'high', not a number"),
        ("confidence", [0.5], '"confidence" is [0.5], not a number'),
    ],
)
def test_a_wrong_value_is_named_with_its_place(
    tmp_path: Path, key: str, value: Any, complaint: str
) -> None:
    data = json.dumps({"predictions": [GOOD, GOOD | {key: value}]}).encode()
    path = write_raw(tmp_path, data, packed=False)
    with pytest.raises(UserError) as caught:
        read_predictions(path, [MATCH])
    assert f"prediction 2: its {complaint}" in str(caught.value)


@pytest.mark.parametrize("key", ["position", "label", "half", "confidence"])
def test_a_missing_key_is_named(key: str) -> None:
    with pytest.raises(ValueError, match=f'no "{key}"'):
        parse_prediction({name: value for name, value in GOOD.items() if name != key})


def test_values_are_read_as_the_package_reads_them() -> None:
    read = parse_prediction({"position": 1999.9, "half": 2, "label": "Goal", "confidence": " 0.5"})
    assert read == (2, 1999, "Goal", 0.5)
    assert math.isnan(parse_prediction(GOOD | {"confidence": None}).confidence)
    assert math.isnan(parse_prediction(GOOD | {"confidence": "nan"}).confidence)


@pytest.mark.parametrize("source", ["results", "results.zip"])
def test_a_match_without_its_file_is_an_error(tmp_path: Path, source: str) -> None:
    write_results(tmp_path, {MATCH: [GOOD]})
    with pytest.raises(UserError, match="other/results_spotting.json"):
        read_predictions(tmp_path / source, [MATCH, OTHER])


def test_the_folder_above_the_results_is_recognised(tmp_path: Path) -> None:
    write_results(tmp_path, {MATCH: [GOOD]})
    with pytest.raises(UserError, match=f"did you mean {tmp_path / 'results'}"):
        read_predictions(tmp_path, [MATCH])


def test_no_zip_and_a_damaged_zip_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder or zip"):
        read_predictions(tmp_path / "nothing", [MATCH])
    (tmp_path / "text.zip").write_text("hello")
    with pytest.raises(UserError, match=r"text\.zip: neither a folder nor a readable zip"):
        read_predictions(tmp_path / "text.zip", [MATCH])
    write_results(tmp_path, {MATCH: [GOOD] * 50})
    data = bytearray((tmp_path / "results.zip").read_bytes())
    data[130:140] = bytes(10)
    (tmp_path / "results.zip").write_bytes(data)
    with pytest.raises(UserError, match=r"results\.zip"):
        read_predictions(tmp_path / "results.zip", [MATCH])


def test_a_member_too_large_to_be_results_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_raw(tmp_path, b" " * 5000, packed=True)
    monkeypatch.setattr(results, "_LARGEST_BYTES", 4000)
    with pytest.raises(UserError, match="larger than 4000 bytes"):
        read_predictions(path, [MATCH])
