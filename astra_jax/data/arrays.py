"""Ranges of `.npy` files by positioned reads: the header is parsed once, a file is never mapped.

A memory map of a file that shrinks kills the process, and its pages look like a leak.
"""

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


@dataclass(frozen=True)
class ArrayFile:
    """A two-dimensional float array in a `.npy` file; rows are steps in time, whatever the order.

    Holds no file handle: it may be pickled and read in any process. `rows` lie along
    `time_axis` of `shape`, `columns` along the other one.
    """

    path: Path
    shape: tuple[int, int]
    dtype: np.dtype
    fortran: bool
    offset: int
    time_axis: int = 0

    @property
    def rows(self) -> int:
        """Number of steps in time."""
        return self.shape[self.time_axis]

    @property
    def columns(self) -> int:
        """Number of values a step."""
        return self.shape[1 - self.time_axis]

    def read(self, start: int, stop: int) -> Float32[np.ndarray, "row column"]:
        """Rows [start, stop), as float32, reading no byte beside them.

        Errors: UserError where the file has gone, shrunk or grown since its header was read, and
        where a row holds NaN or infinite values.
        """
        if not 0 <= start <= stop <= self.rows:
            raise ValueError(f"rows [{start}, {stop}) of {self.rows}")
        rows_are_contiguous = (self.time_axis == 0) != self.fortran
        try:
            file = os.open(self.path, os.O_RDONLY)
        except OSError as error:
            raise _change_error(self.path, error.strerror or "it cannot be opened") from error
        try:
            expected = self.offset + self.shape[0] * self.shape[1] * self.dtype.itemsize
            if os.fstat(file).st_size != expected:
                raise _change_error(self.path, "its size is another one")
            raw = self._contiguous(file, start, stop) if rows_are_contiguous else None
            raw = self._strided(file, start, stop) if raw is None else raw
        except OSError as error:
            raise _change_error(self.path, error.strerror or "it cannot be read") from error
        finally:
            os.close(file)
        with np.errstate(over="ignore"):
            values = raw.astype(np.float32, order="C", copy=False)
        _check_finite(values, self.path, start)
        return values

    def _contiguous(self, file: int, start: int, stop: int) -> Float[np.ndarray, "row column"]:
        step = self.columns * self.dtype.itemsize
        data = _pread(file, (stop - start) * step, self.offset + start * step, self.path)
        return np.frombuffer(data, self.dtype).reshape(stop - start, self.columns)

    def _strided(self, file: int, start: int, stop: int) -> Float[np.ndarray, "row column"]:
        """One read a column: where the file holds column after column."""
        size = self.dtype.itemsize
        lines = np.empty((self.columns, stop - start), self.dtype)
        for column in range(self.columns):
            at = self.offset + (column * self.rows + start) * size
            data = _pread(file, (stop - start) * size, at, self.path)
            lines[column] = np.frombuffer(data, self.dtype)
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


def _pread(file: int, size: int, offset: int, path: Path) -> bytes:
    parts = []
    while size > 0:
        part = os.pread(file, size, offset)
        if not part:
            raise _change_error(path, "it ends too early")
        parts.append(part)
        size -= len(part)
        offset += len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _change_error(path: Path, what: str) -> UserError:
    return UserError(
        f"{path}: the file changed since it was indexed ({what}); restore it and start again"
    )


def _check_finite(values: Float[np.ndarray, "row column"], path: Path, start: int) -> None:
    finite = np.isfinite(values)
    if finite.all():
        return
    bad = np.flatnonzero(~finite.all(axis=1)) + start
    some = ", ".join(str(row) for row in bad[:5]) + (", ..." if len(bad) > 5 else "")
    raise UserError(
        f"{path}: NaN or infinite values in {len(bad)} row(s): {some} (counted from 0); "
        "compute these features again"
    )
