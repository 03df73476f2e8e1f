"""Ranges of `.npy` files by positioned reads: the header is parsed once, a file is never mapped.

A memory map of a file that shrinks kills the process, and its pages look like a leak.
"""

import contextlib
import errno
import os
import tokenize
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import Float, Float32

from astra_jax.errors import UserError, reading_error

FLOAT_BYTES = (2, 4, 8)
# What numpy's header parser lets out where the header is garbage.
HEADER_ERRORS = (ValueError, TypeError, SyntaxError, tokenize.TokenError)

_PATTERNS: dict[np.dtype, tuple[str, str, int]] = {
    np.dtype(np.float16): ("int16", "uint16", 0x7C00),
    np.dtype(np.float32): ("int32", "uint32", 0x7F80_0000),
}
"""The whole numbers of a float's width, and the one that has the bits of infinity."""


@dataclass(frozen=True)
class ArrayFile:
    """A two-dimensional float array in a `.npy` file; rows are steps in time, whatever the order.

    Holds no file handle: it may be pickled and read in any process. `rows` lie along
    `time_axis` of `shape`, `columns` along the other one. `copy`: where a copy of it is to be made
    when it is first read, and read from then on.
    """

    path: Path
    shape: tuple[int, int]
    dtype: np.dtype
    fortran: bool
    offset: int
    time_axis: int = 0
    copy: Path | None = None

    @property
    def size(self) -> int:
        """Bytes of the file, its header among them."""
        return self.offset + self.shape[0] * self.shape[1] * self.dtype.itemsize

    @property
    def rows(self) -> int:
        """Number of steps in time."""
        return self.shape[self.time_axis]

    @property
    def columns(self) -> int:
        """Number of values a step."""
        return self.shape[1 - self.time_axis]

    def read(self, start: int, stop: int) -> Float32[np.ndarray, "row column"]:
        """Rows [start, stop), as float32. Errors: as `read_into`."""
        values = np.empty((stop - start, self.columns), np.float32)
        self.read_into(start, values)
        return values

    def read_into(self, start: int, out: Float[np.ndarray, "row column"]) -> None:
        """As many rows from `start` on as `out` has, reading no byte beside them.

        `out` is contiguous, of float32, or of float16 where the file is. What has its type comes
        straight from the file, with no copy between.
        Errors: UserError where the file has gone, shrunk or grown since its header was read, and
        where a row holds NaN or infinite values.
        """
        stop = start + len(out)
        if not 0 <= start <= stop <= self.rows:
            raise ValueError(f"rows [{start}, {stop}) of {self.rows}")
        if not out.size:
            return
        try:
            file = self._open()
        except OSError as error:
            raise _change_error(self.path, error.strerror or "it cannot be opened") from error
        try:
            raw = self._fetch(file, start, out)
        except OSError as error:
            if error.errno == errno.EFAULT:  # the system has no page for a part of `out`
                raise UserError(
                    "data.workers: no room in /dev/shm, where the batches of loading processes "
                    "lie: enlarge it (docker run --shm-size=16g), or set data.workers=0"
                ) from error
            raise _change_error(self.path, error.strerror or "it cannot be read") from error
        finally:
            os.close(file)
        if raw is not out:
            with np.errstate(over="ignore"):
                np.copyto(out, raw, casting="unsafe")
        # Of float64 the narrowed values count, which may have become infinite.
        if not _is_finite(raw if raw.dtype in _PATTERNS else out):
            raise _not_finite_error(out, self.path, start)

    def _open(self) -> int:
        """The open copy, or the open file where there is none, or none yet."""
        if self.copy is not None:
            with contextlib.suppress(FileNotFoundError):
                return os.open(self.copy, os.O_RDONLY)
        file = os.open(self.path, os.O_RDONLY)
        if os.fstat(file).st_size != self.size:
            os.close(file)
            raise _change_error(self.path, "its size is another one")
        if self.copy is not None:
            _copy_once(file, self.size, self.copy)
        return file

    def _fetch(
        self, file: int, start: int, out: Float[np.ndarray, "row column"]
    ) -> Float[np.ndarray, "row column"]:
        """The rows as the file holds them, in `out` where that will do."""
        size = self.dtype.itemsize
        if (self.time_axis == 0) != self.fortran:  # row after row
            raw = out if out.dtype == self.dtype else np.empty(out.shape, self.dtype)
            _fill(raw, file, self.offset + start * self.columns * size, self.path)
            return raw
        lines = np.empty((self.columns, len(out)), self.dtype)
        for column, line in enumerate(lines):
            _fill(line, file, self.offset + (column * self.rows + start) * size, self.path)
        return lines.T


def open_array(path: Path) -> ArrayFile:
    """The array in a `.npy` file of float16, float32 or float64, from its header alone.

    Both memory orders are understood. Errors: UserError where the file cannot be read, is no
    `.npy`, is not a two-dimensional float array, or is shorter or longer than its header says.
    """
    try:
        with open(path, "rb") as file:
            shape, fortran, dtype = _read_header(file)
            offset = file.tell()
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise reading_error(path, error) from error
    except HEADER_ERRORS as error:
        raise UserError(
            f"{path}: not a readable .npy file; write it again with numpy.save"
        ) from error
    if len(shape) != 2:
        raise UserError(f"{path}: its shape is {shape}, it must have two axes (rows, columns)")
    if dtype.kind != "f" or dtype.itemsize not in FLOAT_BYTES:
        raise UserError(f"{path}: it holds {dtype}; save it as float16 or float32")
    expected = offset + shape[0] * shape[1] * dtype.itemsize
    if size != expected:
        raise UserError(
            f"{path}: {size} bytes where its header announces {expected}; "
            "the file is damaged: copy or download it again"
        )
    return ArrayFile(Path(path), (shape[0], shape[1]), dtype, fortran, offset)


def _read_header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(file)
    raise ValueError(f"format version {version}")  # 3.0 serves structured arrays alone


def _fill(array: Float[np.ndarray, "*shape"], file: int, offset: int, path: Path) -> None:
    """Fills a contiguous array with the bytes at `offset`, in however many pieces they come."""
    left = array.reshape(-1).view(np.uint8).data
    while left:
        count = os.preadv(file, [left], offset)
        if not count:
            raise _change_error(path, "it ends too early")
        left, offset = left[count:], offset + count


def _copy_once(file: int, size: int, copy: Path) -> None:
    """Copies a file, unless somebody is at it; where there is no room, nobody tries again."""
    try:
        part = os.open(f"{copy}.part", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError:
        return
    try:
        done = 0
        while done < size and (count := os.sendfile(part, file, done, size - done)):
            done += count
        if done == size:
            os.rename(f"{copy}.part", copy)
    except OSError:
        with contextlib.suppress(OSError):
            os.ftruncate(part, 0)
    finally:
        os.close(part)


def _change_error(path: Path, what: str) -> UserError:
    return UserError(
        f"{path}: the file changed since it was indexed ({what}); restore it and start again"
    )


def _is_finite(values: Float[np.ndarray, "row column"]) -> bool:
    """Whether no value is NaN or infinite, by the bits: no array of answers, two fast maxima."""
    signed, unsigned, infinity = _PATTERNS[values.dtype]
    # As whole numbers, positive values rise up to infinity and NaN; so do negative ones, which lie
    # below zero where there is a sign and above the positive ones where there is none.
    highest, negative = values.view(signed).max(), values.view(unsigned).max()
    return bool(highest < infinity and negative < infinity + (1 << 8 * values.itemsize - 1))


def _not_finite_error(values: Float[np.ndarray, "row column"], path: Path, start: int) -> UserError:
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1)) + start
    some = ", ".join(str(row) for row in bad[:5]) + (", ..." if len(bad) > 5 else "")
    return UserError(
        f"{path}: NaN or infinite values in {len(bad)} row(s): {some} (counted from 0); "
        "compute these features again"
    )
