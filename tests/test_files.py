"""Files are whole or not there, and errors name the one that was meant."""

import errno
import os
from pathlib import Path

import pytest

from astra_jax import files
from astra_jax.files import append_line, remove_unfinished, write_atomically
from astra_jax.runs.folder import RunFolder
from astra_jax.runs.lock import lock_folder
from astra_jax.training import interruption

FULL = OSError(errno.ENOSPC, "No space left on device")


def fail(*args: object) -> None:
    raise FULL


def test_what_a_killed_process_left_is_taken_away(tmp_path):
    (tmp_path / ".a.unfinished").touch()
    (tmp_path / ".b.unfinished").mkdir()
    (tmp_path / ".b.unfinished" / "part").touch()
    (tmp_path / "kept").touch()
    remove_unfinished(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_a_full_disk_leaves_the_old_file_and_names_it(tmp_path, monkeypatch):
    path = tmp_path / "summary.json"
    write_atomically(path, "old")
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space") as error:
        write_atomically(path, "new")
    assert error.value.filename == str(path)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_line_that_is_refused_names_the_file():
    with pytest.raises(OSError, match="No space") as error:
        append_line(Path("/dev/full"), "line")
    assert error.value.filename == "/dev/full"


def test_what_a_killed_process_left_unfinished_is_taken_away(tmp_path, monkeypatch):
    with monkeypatch.context() as killed:
        killed.setattr(os, "replace", fail)
        killed.setattr(Path, "unlink", lambda *args, **kwargs: None)
        with pytest.raises(OSError, match="No space"):
            write_atomically(tmp_path / "config.json", "{}")
    assert len(list(tmp_path.iterdir())) == 1
    (tmp_path / ".mine").write_text("kept")
    remove_unfinished(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".mine"]


def test_a_lock_that_a_full_disk_does_not_take_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "pwrite", fail)
    with (
        pytest.raises(OSError, match="No space") as error,
        lock_folder(RunFolder(tmp_path / "run")),
    ):
        pass
    assert error.value.filename == str(tmp_path / "run" / "run.lock")
    assert list(tmp_path.iterdir()) == []


def test_last_words_into_a_closed_pipe_are_no_fault(monkeypatch):
    """`astra train | tee log`: Ctrl-C ends tee as well."""

    def closed(*args: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(os, "write", closed)
    interruption._write("ended by SIGINT")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_what_is_no_file_is_written_into_and_stays_what_it_is(tmp_path):
    """`--json /dev/null`, given by root as in a container, put a file in the device's place."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        files.write_atomically(pipe, "scores")
        assert os.read(reader, 100) == b"scores" and pipe.is_fifo()
    finally:
        os.close(reader)


def test_a_device_that_is_a_link_stays_one(tmp_path, monkeypatch):
    """As /dev/stdout, where the output goes to a file."""
    monkeypatch.setattr(files, "_DEVICES", tmp_path)
    (tmp_path / "out.txt").touch()
    (tmp_path / "stdout").symlink_to("out.txt")
    files.write_atomically(tmp_path / "stdout", "scores")
    assert (tmp_path / "stdout").is_symlink() and (tmp_path / "out.txt").read_text() == "scores"
