"""Writing files, whole or not at all, and line by line; errors name the file that was meant."""

import contextlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from astra_jax.errors import one_line

_UNFINISHED = ".unfinished"
_LONGEST_NAME = 255
_DEVICES = Path("/dev")

NAME_RULES = f"at most {_LONGEST_NAME} bytes of UTF-8 between two slashes, and no line break"
"""What `can_be_a_name` asks of a name, in words."""


def write_atomically(path: Path, data: str | bytes) -> None:
    """Writes `data` to `path` by way of a temporary file beside it; makes its folder.

    A device or a pipe (`/dev/null`, `/dev/stdout`) is written into: nothing takes its place.
    """
    content = data.encode() if isinstance(data, str) else data
    with name_in_errors(path):
        if _is_special(path):
            path.write_bytes(content)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(
            dir=path.parent, prefix=f".{path.name}.", suffix=_UNFINISHED
        )
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())  # or a power cut may leave the name and no content
            # mkstemp's files are for their owner only; results are to be shared.
            os.chmod(name, 0o644)
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def _is_special(path: Path) -> bool:
    """Whether this is neither a file to be replaced nor a folder, or a name of the system's."""
    if not path.exists():
        return False
    # /dev/stdout is a link, to a file where the output goes to one.
    return path.absolute().parent == _DEVICES or not (path.is_file() or path.is_dir())


@contextlib.contextmanager
def write_folder(path: Path) -> Iterator[Path]:
    """A folder to write into, which becomes `path` in the end; on an error nothing is left of it.

    There must be nothing at `path`, or an empty folder.
    """
    with name_in_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        name = tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=_UNFINISHED)
        try:
            yield Path(name)
            os.chmod(name, 0o755)  # mkdtemp's are for their owner only
            os.replace(name, path)
        except BaseException:
            shutil.rmtree(name, ignore_errors=True)
            raise


def remove_unfinished(folder: Path) -> None:
    """Takes away what a killed process left of its writing into `folder`, below it not."""
    for path in folder.glob(f".*{_UNFINISHED}"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def append_line(path: Path, line: str) -> None:
    """Adds `line` to the file at `path`."""
    with name_in_errors(path), open(path, "a", encoding="utf-8") as file:
        file.write(line + "\n")


def parse_mapping(path: Path) -> dict[str, Any]:
    """The mapping in a JSON file; ValueError, why in one line, where it is damaged or absent."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(one_line(error, 100)) from error
    if not isinstance(content, dict):
        raise ValueError("no mapping")
    return content


def read_mapping(path: Path) -> dict[str, Any] | None:
    """The mapping in a JSON file; None where there is no file, or it is damaged."""
    try:
        return parse_mapping(path)
    except ValueError:
        return None


def can_be_made(folder: Path) -> bool:
    """Whether files can be written into a folder, or it be made where it isn't there yet."""
    path = folder.absolute()
    there = next(part for part in (path, *path.parents) if os.path.lexists(part))
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


def can_be_a_name(name: str) -> bool:
    """Whether a file or folder can have this name, and a message name it in one line."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:  # half a character, as JSON can spell it
        return False
    return size <= _LONGEST_NAME and "\0" not in name and name.splitlines() == [name]


def as_file_name(text: str) -> str:
    """`text` with underscores for what parts paths, or words in a shell."""
    return re.sub(r"[^\w.+-]+", "_", text)


@contextlib.contextmanager
def name_in_errors(path: Path) -> Iterator[None]:
    """Errors of the disk name `path`: a full one's name a temporary file, or none."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
