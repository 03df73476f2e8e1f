"""Ranges of `.npy` files: what is read, how little is read, and files that changed."""

import mmap
import os

import numpy as np
import pytest
from helpers.errors import check_line
from helpers.matches import MATCH, WIDE, grid, index, write_match

from astra_jax.data.arrays import open_array
from astra_jax.errors import UserError


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_range_of_rows_is_read_from_either_memory_order(tmp_path, dtype, order):
    values = np.asarray(grid(50, 7), dtype=dtype, order=order)
    np.save(tmp_path / "a.npy", values)
    read = open_array(tmp_path / "a.npy").read(11, 19)
    assert read.dtype == np.float32 and read.flags.c_contiguous
    np.testing.assert_array_equal(read, values[11:19].astype(np.float32))


@pytest.mark.parametrize("turned", [False, True])
def test_a_clip_reads_only_its_own_bytes(tmp_path, monkeypatch, turned):
    write_match(tmp_path)
    for half in (1, 2):
        path = tmp_path / MATCH / f"audio{half}.npy"
        if turned:
            np.save(path, np.ascontiguousarray(np.load(path).T))
    half = index(tmp_path)[0]
    sizes = []
    preadv = os.preadv
    monkeypatch.setattr(os, "preadv", lambda *args: sizes.append(len(args[1][0])) or preadv(*args))
    half.read_source(0, 20, 50)
    assert sizes == [50 * 6 * 4]
    sizes.clear()
    power, _ = half.read_mel_power(300, 200)
    assert sizes == ([200 * 4 * 4] if turned else 4 * [200 * 4])
    np.testing.assert_array_equal(power, (grid(12001, 4) + 1000)[300:500])


def test_a_read_that_comes_in_pieces_is_put_together(tmp_path, monkeypatch):
    np.save(tmp_path / "a.npy", grid(30, 5))
    preadv = os.preadv
    monkeypatch.setattr(os, "preadv", lambda file, parts, at: preadv(file, [parts[0][:37]], at))
    read = open_array(tmp_path / "a.npy").read(3, 27)
    np.testing.assert_array_equal(read, grid(30, 5)[3:27])


def test_a_damaged_array_is_an_error(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, grid(50, 7))
    whole = path.read_bytes()
    garbled = whole.replace(b"(50, 7)", b"(50, 7(")
    for content in (b"", b"text", whole[:60], whole[:-4], whole + b"x", garbled):
        path.write_bytes(content)
        with pytest.raises(UserError) as error:
            open_array(path)
        check_line(error, str(path))


@pytest.mark.parametrize(
    "values",
    [
        np.zeros(5, np.float32),
        np.zeros((2, 3, 4), np.float32),
        np.zeros((2, 3), int),
        np.array([[{}]]),
    ],
)
def test_an_array_of_another_kind_is_an_error(tmp_path, values):
    np.save(tmp_path / "a.npy", values, allow_pickle=True)
    with pytest.raises(UserError) as error:
        open_array(tmp_path / "a.npy")
    check_line(error, "a.npy")


def test_a_file_that_vanishes_or_shrinks_after_indexing_is_an_error(tmp_path):
    folder = write_match(tmp_path)
    half = index(tmp_path)[0]
    path = folder / WIDE.format(half=1)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError) as error:
        half.read_source(0, 0, 50)
    check_line(error, str(path), "changed")
    path.unlink()
    with pytest.raises(UserError) as error:
        half.read_source(0, 0, 50)
    check_line(error, str(path), "changed")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_an_error_when_their_clip_is_read(tmp_path, value):
    folder = write_match(tmp_path)
    path = folder / WIDE.format(half=1)
    values = np.load(path)
    values[[71, 73], 2] = value
    np.save(path, values)
    half = index(tmp_path)[0]
    half.read_source(0, 0, 50)
    with pytest.raises(UserError) as error:
        half.read_source(0, 50, 50)
    check_line(error, str(path), "2 row(s): 71, 73")


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf, None])
def test_every_value_that_is_not_finite_is_found_and_no_other(tmp_path, dtype, value):
    """The largest, smallest and least values of either sign are finite."""
    limits = np.finfo(dtype)
    extremes = [limits.max, limits.min, limits.tiny, limits.smallest_subnormal, 0.0, -0.0, -1.0]
    values = np.array([extremes, np.negative(extremes)], dtype)
    if value is not None:
        values[1, 3] = value
    np.save(tmp_path / "a.npy", values)
    out = np.empty((2, 7), dtype)
    file = open_array(tmp_path / "a.npy")
    if value is None:
        file.read_into(0, out)
        np.testing.assert_array_equal(out, values)
        return
    with pytest.raises(UserError) as error:
        file.read_into(0, out)
    check_line(error, "1 row(s): 1 ")


@pytest.mark.parametrize("order", ["C", "F"])
def test_half_precision_is_read_as_it_is(tmp_path, order):
    values = np.asarray(grid(50, 7), dtype=np.float16, order=order)
    np.save(tmp_path / "a.npy", values)
    out = np.zeros((12, 7), np.float16)
    open_array(tmp_path / "a.npy").read_into(11, out[2:10])
    np.testing.assert_array_equal(out[2:10], values[11:19])
    assert not out[:2].any() and not out[10:].any()


def test_shared_memory_that_is_full_names_the_key(tmp_path):
    """The system has no page for what a loading process is about to fill."""
    np.save(tmp_path / "a.npy", grid(5000, 7))
    with open(tmp_path / "shared", "wb+") as file:
        file.truncate(1 << 20)
        shared = np.frombuffer(mmap.mmap(file.fileno(), 1 << 20), np.float32)
        file.truncate(0)
        with pytest.raises(UserError) as error:
            open_array(tmp_path / "a.npy").read_into(0, shared[:35000].reshape(5000, 7))
    check_line(error, "data.workers", "/dev/shm", "data.workers=0")
