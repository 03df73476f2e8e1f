"""Files that stay in memory: the same batches, no trace afterwards, an error where none fits."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.errors import check_line
from helpers.matches import MATCH, WIDE, index, stream_config, write_match
from helpers.tiny import tiny_config, write_data

from astra_jax.config.load import freeze
from astra_jax.config.saved import may_differ
from astra_jax.data import cache
from astra_jax.data.cache import MemoryCache, close_all, is_wanted, remove_left
from astra_jax.data.pipeline import TrainingStream
from astra_jax.errors import UserError
from astra_jax.model import ASTRA
from astra_jax.runs.folder import RunFolder
from astra_jax.runs.prepare import prepare
from astra_jax.runs.settings import Settings


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The root of a match of two halves of 300 s."""
    write_match(tmp_path / "data", seconds=(300, 300))
    return tmp_path / "data"


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    """What stands in for /dev/shm."""
    folder = tmp_path / "memory"
    folder.mkdir()
    return folder


def features(halves, workers: int = 0) -> list[np.ndarray]:
    stream = TrainingStream(halves, stream_config(workers, batch_size=4))
    return [np.array(batch["features"][0]) for batch in stream.batches(0, 8)]


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_the_same_and_later_ones_need_no_file(data, memory, workers):
    halves = index(data)
    expected = features(halves)
    with MemoryCache(halves, memory) as kept:
        np.testing.assert_array_equal(features(kept.keep(halves), workers), expected)
        (folder,) = memory.iterdir()
        assert sorted(path.name for path in folder.iterdir()) == [
            "0",
            "1",
            "2",
            "3",
            "4",
            "5",
            "lock",
        ]
        shutil.rmtree(data)
        np.testing.assert_array_equal(features(kept.keep(halves), workers), expected)
    assert not list(memory.iterdir())


def test_a_file_that_changed_is_not_copied(data, memory):
    halves = index(data)
    path = data / MATCH / WIDE.format(half=1)
    path.write_bytes(path.read_bytes()[:-100])
    with (
        MemoryCache(halves, memory) as kept,
        pytest.raises(UserError, match="file changed") as error,
    ):
        features(kept.keep(halves))
    check_line(error, str(path))


def test_where_there_is_no_room_any_more_files_are_read_as_ever(data, memory, monkeypatch):
    halves = index(data)
    expected, tried = features(halves), []

    def full(*args):
        tried.append(args)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "sendfile", full)
    with MemoryCache(halves, memory) as kept:
        np.testing.assert_array_equal(features(kept.keep(halves)), expected)
    assert len(tried) == 6  # once a file


def test_what_doesnt_fit_is_refused_with_both_sizes(data, memory, monkeypatch):
    monkeypatch.setattr(cache, "_free", lambda root: 20_000)
    with pytest.raises(UserError) as error:
        MemoryCache(index(data), memory)
    check_line(error, "config.data.cache", "for 6 files", "0.0 GB are free")
    assert not list(memory.iterdir())


def test_the_smallest_of_what_is_free_counts(memory):
    space = os.statvfs(memory)
    assert 0 < cache._free(memory) <= space.f_bavail * space.f_frsize


def test_in_a_container_its_limit_counts_and_files_that_were_read_do_not(
    memory, tmp_path, monkeypatch
):
    monkeypatch.setattr(cache, "GROUP", tmp_path)
    (tmp_path / "memory.max").write_text("10000\n")
    (tmp_path / "memory.current").write_text("9000\n")
    (tmp_path / "memory.stat").write_text("anon 2000\nfile 7000\nactive_file 1500\n")
    assert cache._free(memory) == 2500
    (tmp_path / "memory.max").write_text("max\n")
    assert cache._free(memory) > 10_000


def test_where_nothing_can_be_written_it_is_refused(data, memory, monkeypatch):
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(cache.tempfile, "mkdtemp", full)
    with pytest.raises(UserError) as error:
        MemoryCache(index(data), memory)
    check_line(error, "config.data.cache", str(memory), "Read-only file system")


def test_without_shared_memory_it_is_refused(data, tmp_path):
    with pytest.raises(UserError) as error:
        MemoryCache(index(data), tmp_path / "shm")
    check_line(error, "config.data.cache", "no ")


def test_what_a_killed_run_left_is_removed_and_a_living_one_s_stays(data, memory):
    left = memory / "astra_jax_cache_dead"
    left.mkdir()
    (left / "0").write_bytes(b"x" * 100)
    (memory / "another").mkdir()
    with MemoryCache(index(data), memory):
        remove_left(memory)
        assert not left.exists() and len(list(memory.iterdir())) == 2
    assert [path.name for path in memory.iterdir()] == ["another"]


def test_a_cache_that_nobody_closes_goes_with_its_last_user(data, memory):
    kept = MemoryCache(index(data), memory)
    assert list(memory.iterdir())
    del kept
    assert not list(memory.iterdir())


def test_all_caches_of_a_process_that_ends_at_once_can_be_closed(data, memory):
    with MemoryCache(index(data), memory):
        next(memory.iterdir())
        close_all()
        assert not list(memory.iterdir())
    assert not list(memory.iterdir())


def test_its_values_are_memory_and_none():
    assert is_wanted("memory") and not is_wanted("") and not is_wanted(None)
    with pytest.raises(UserError) as error:
        is_wanted("disk")
    check_line(error, "config.data.cache", "'disk'", "'memory'")


def test_a_training_reads_and_validates_from_memory_and_leaves_nothing(tmp_path, monkeypatch):
    """And a run may go on with another value."""
    config = tiny_config(write_data(tmp_path / "data"))
    config.data.cache = "memory"
    settings = Settings.from_config(freeze(config))
    (tmp_path / "shm").mkdir()
    monkeypatch.setattr(cache, "ROOT", tmp_path / "shm")
    prepared = prepare(settings, RunFolder(tmp_path / "run"), ASTRA(settings.model))
    with prepared.cache:
        next(prepared.stream.batches(0, 1))
        kept = [file.copy for half in prepared.data_halves for file in half.sources]
        assert len(set(kept)) == 8 and any(copy.exists() for copy in kept)
        assert prepared.validation.halves[0].sources[0].read(0, 5).shape == (5, 6)
        assert prepared.validation.halves[0].sources[0].copy.exists()
    assert not list((tmp_path / "shm").iterdir())
    assert may_differ("data.cache")
