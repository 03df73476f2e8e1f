"""Compiled programs, kept on disk for the next process.

JAX keeps them, below a folder of its own for each JAX, platform and kind of processor, so that none
is ever offered a program that was compiled for another one. All folders together are bounded.
A matter of speed alone: where nothing can be kept, nothing is said of it.
"""

import contextlib
import functools
import hashlib
import os
import platform
import re
import warnings
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, TextIO

import jax
from jax.experimental.compilation_cache import compilation_cache

from astra_jax.devices import is_first_process

MOST_BYTES = 2 * 10**9
"""Of all programs that are kept; those that were not used for longest go first."""

_DIRECTORY = "jax_compilation_cache_dir"
_FOLDER = "jax{}-jaxlib{}-{}"
_OURS = "jax*-jaxlib*-*"
# All programs: those that compile in an instant are a few kilobytes, and quicker read.
_SETTINGS: dict[str, Any] = {
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_min_entry_size_bytes": 0,
}
_FAULT = r"Error (?P<way>reading|writing) persistent compilation cache entry for '(?P<name>[^']*)'"


@contextlib.contextmanager
def keeps_programs(where: str | None) -> Iterator[None]:
    """Within it, what was compiled before is read from disk, and what is compiled is kept there.

    `where`: a folder; None: one below the user's cache folder; "": nothing is read or kept. Several
    processes need to be told of a folder, one that all see: where one of them finds a program that
    others compile, XLA may wait for it. Where JAX has a cache already (JAX_COMPILATION_CACHE_DIR,
    `jax_compilation_cache_dir`) that one serves. JAX's settings are afterwards as they were.
    """
    folder = None if getattr(jax.config, _DIRECTORY) else _folder(where)
    if folder is None:
        yield
        return
    with contextlib.ExitStack() as undo:
        if is_first_process():
            remove_oldest(folder.parent)
            undo.callback(remove_oldest, folder.parent)
        for name, value in (_SETTINGS | {_DIRECTORY: str(folder)}).items():
            undo.callback(jax.config.update, name, getattr(jax.config, name))
            jax.config.update(name, value)
        # JAX opens a cache once: the one that it has open is of other settings.
        compilation_cache.reset_cache()
        undo.callback(compilation_cache.reset_cache)
        undo.enter_context(_faults_are_mended(folder))
        yield


def _folder(where: str | None) -> Path | None:
    """The folder for programs of this process; None where there can't be one."""
    if where == "" or (where is None and jax.process_count() > 1):
        return None
    try:
        root = _users_folder() if where is None else Path(where).expanduser().absolute()
        folder = root / _FOLDER.format(jax.__version__, metadata.version("jaxlib"), _machine())
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # no right to it; no home
        return None
    return folder if os.access(folder, os.W_OK) else None


def _users_folder() -> Path:
    named = os.environ.get("XDG_CACHE_HOME", "")
    # One that isn't absolute counts as none, says the standard.
    home = Path(named) if os.path.isabs(named) else Path.home() / ".cache"
    return home / "astra_jax" / "compiled"


def _machine() -> str:
    """The platform and, as XLA compiles for the very processor, a hash of what this one can do.

    What differs between accelerators is in JAX's own keys.
    """
    flags = hashlib.sha256(processor().encode()).hexdigest()[:12]
    return f"{jax.default_backend()}-{flags}"


@functools.cache
def processor() -> str:
    """The model and flags of this machine's processor, as far as the system tells."""
    words = [platform.machine(), platform.processor()]
    with contextlib.suppress(OSError):
        # Of the first core: "flags" is what x86 calls them, "Features" what ARM does.
        core, _, _ = Path("/proc/cpuinfo").read_text(errors="replace").partition("\n\n")
        words += re.findall(r"^(?:flags|Features|model name|CPU part)\s*:.*$", core, re.MULTILINE)
    return "\n".join(words)


def remove_oldest(root: Path, most_bytes: int = MOST_BYTES) -> None:
    """Takes away programs below `root`, the longest unused first, until they fit.

    Looks only into folders that this file makes: `root` may be one that holds other things.
    """
    found = []
    for folder in root.glob(_OURS):
        for path in folder.rglob("*"):
            with contextlib.suppress(OSError):  # another process has just taken it away
                if path.is_file():
                    about = path.stat()
                    found.append((max(about.st_atime, about.st_mtime), about.st_size, path))
    size = sum(of_file for _, of_file, _ in found)
    for _, of_file, path in sorted(found):
        if size <= most_bytes:
            return
        with contextlib.suppress(OSError):
            path.unlink()
            size -= of_file


@contextlib.contextmanager
def _faults_are_mended(folder: Path) -> Iterator[None]:
    """Takes JAX's warnings of entries that can't be read or written for itself.

    A process that is killed, or a full disk, leaves an entry cut short. JAX would complain of it
    at each start and never write it again: it is taken away, and the program is compiled anew.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("always", _FAULT, UserWarning)
        show = warnings.showwarning

        def mend(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if (fault := re.match(_FAULT, str(message))) is None:
                show(message, category, filename, lineno, file, line)
                return
            for entry in folder.glob(f"{fault['name']}-*"):
                with contextlib.suppress(OSError):
                    entry.unlink()

        warnings.showwarning = mend
        yield
