"""Writing files, whole or not at all, and line by line; errors name the file that was meant."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


def write_atomically(path: Path, data: str | bytes) -> None:
    """Writes `data` to `path` by way of a temporary file beside it; makes its folder."""
    content = data.encode() if isinstance(data, str) else data
    with _naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            # mkstemp's files are for their owner only; results are to be shared.
            os.chmod(name, 0o644)
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def append_line(path: Path, line: str) -> None:
    """Adds `line` to the file at `path`."""
    with _naming(path), open(path, "a", encoding="utf-8") as file:
        file.write(line + "\n")


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Errors of the disk name `path`: a full one's name a temporary file, or none."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
