"""What ran when, on what: the entries of provenance.json and the fingerprint of the data."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.matches import MATCH, WIDE, annotation, grid, index, write_labels, write_match

from astra_jax.runs.folder import EvaluationFolder, RunFolder
from astra_jax.runs.provenance import (
    PACKAGES,
    add_start,
    commit,
    fingerprint,
    write_evaluation,
)

OTHER = "league/season/C - D"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_match(tmp_path / "data", annotations=[annotation(1, 3000)])
    write_match(tmp_path / "data", OTHER)
    return tmp_path / "data"


# The fingerprint of the data


def test_the_fingerprint_is_the_same_wherever_the_data_lie(root, tmp_path):
    shutil.copytree(root, tmp_path / "moved")
    for kind in ("features", "labels", "audio"):
        shutil.copytree(root, tmp_path / kind)
    apart = {f"{kind}_root": str(tmp_path / kind) for kind in ("features", "labels", "audio")}
    expected = fingerprint(index(root))
    assert fingerprint(index(tmp_path / "moved")) == expected
    assert fingerprint(index(tmp_path / "none", **apart)) == expected


def test_the_fingerprint_reads_no_features(root):
    expected = fingerprint(index(root))
    path = root / MATCH / WIDE.format(half=1)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert fingerprint(index(root)) == expected


def relabel(root: Path) -> None:
    write_labels(root / MATCH, [annotation(1, 3001)])


def lengthen(root: Path) -> None:
    path = root / MATCH / WIDE.format(half=2)
    np.save(path, grid(121, 6))


def widen(root: Path) -> None:
    path = root / MATCH / WIDE.format(half=2)
    np.save(path, np.load(path).astype(np.float64))


def lose_the_audio(root: Path) -> None:
    (root / MATCH / "audio1.npy").unlink()


@pytest.mark.parametrize("change", [relabel, lengthen, widen, lose_the_audio])
def test_other_data_have_another_fingerprint(root, change):
    before = fingerprint(index(root))
    change(root)
    assert fingerprint(index(root)) != before


def test_other_matches_have_another_fingerprint(root):
    prints = {fingerprint(index(root, *of)) for of in ((MATCH,), (OTHER,), (MATCH, OTHER))}
    assert len(prints) == 3


# The file


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return RunFolder(tmp_path).provenance_path


def starts(path: Path) -> list[dict]:
    return json.loads(path.read_text())["starts"]


def test_every_start_is_added_and_none_is_lost(path, caplog, monkeypatch):
    monkeypatch.setattr("sys.argv", ["train.py", "--config", "a b.py"])
    add_start(path, "sha256:1", step=0)
    (first,) = starts(path)
    monkeypatch.setattr("sys.argv", ["astra", "train"])
    add_start(path, "sha256:1", step=6)
    assert starts(path)[0] == first and len(starts(path)) == 2
    assert [entry["step"] for entry in starts(path)] == [0, 6]
    assert first["command"] == ["train.py", "--config", "a b.py"]
    assert (first["devices"], first["processes"], first["device_kind"]) == (8, 1, "cpu")
    assert set(first["packages"]) == set(PACKAGES) and first["packages"]["jax"][0].isdigit()
    assert first["started"].endswith("+00:00") and first["host"] and first["platform"]
    assert not caplog.text


def test_other_data_than_at_the_first_start_give_one_warning(path, caplog):
    for data in ("sha256:1", "sha256:2"):
        add_start(path, data, step=0)
    (record,) = caplog.records
    assert record.levelname == "WARNING" and "\n" not in record.getMessage()
    assert "the data differ" in record.getMessage() and "--workdir" in record.getMessage()
    assert [entry["data"] for entry in starts(path)] == ["sha256:1", "sha256:2"]


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff", b'{"starts": [1]}'])
def test_a_damaged_file_stops_no_run(path, caplog, content):
    path.write_bytes(content)
    add_start(path, "sha256:1", step=3)
    assert [entry["step"] for entry in starts(path)] == [3]
    (record,) = caplog.records
    assert "provenance.json: not readable" in record.getMessage()


def test_an_evaluation_says_of_what(tmp_path):
    path = EvaluationFolder(tmp_path).provenance_path
    write_evaluation(path, "sha256:1", workdir="runs/a", step=9, split="test")
    content = json.loads(path.read_text())
    assert {key: content[key] for key in ("workdir", "step", "split", "data")} == {
        "workdir": "runs/a",
        "step": 9,
        "split": "test",
        "data": "sha256:1",
    }
    assert "packages" in content


# The commit


@pytest.fixture
def git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Calls git in a repository of one commit at tmp_path / "repo"."""
    if shutil.which("git") is None:
        pytest.skip("git is not here")
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    repository = tmp_path / "repo"
    (repository / "package").mkdir(parents=True)
    (repository / "package" / "a.py").write_text("1\n")

    def call(*arguments: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        command = ["git", "-C", str(repository), *who, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    call("init", "-q")
    call("add", ".")
    call("commit", "-qm", "first")
    return call


def test_the_commit_of_a_checkout_and_whether_files_differ_from_it(git, tmp_path):
    package = tmp_path / "repo" / "package"
    (tmp_path / "repo" / "runs").write_text("unknown to git")
    assert commit(package) == {"id": git("rev-parse", "HEAD"), "dirty": False}
    (package / "a.py").write_text("2\n")
    assert commit(package) == {"id": git("rev-parse", "HEAD"), "dirty": True}


def test_a_package_that_only_lies_in_a_repository_has_no_commit(git, tmp_path):
    installed = tmp_path / "repo" / ".venv" / "package"
    installed.mkdir(parents=True)
    (installed / "a.py").write_text("1\n")
    assert commit(installed) is None


def test_without_a_checkout_or_git_there_is_no_commit(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert commit(tmp_path) is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commit(Path(__file__).parent) is None
