"""What ran when, on what and with which data: `provenance.json` of a run and of an evaluation."""

import hashlib
import json
import logging
import platform
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from astra_jax.data.arrays import ArrayFile
from astra_jax.data.halves import Half
from astra_jax.data.layout import label_path
from astra_jax.files import parse_mapping, write_atomically

PACKAGES = (
    "astra_jax",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "grain",
    "numpy",
)

_GIT_SECONDS = 10

_log = logging.getLogger(__name__)


def add_start(path: Path, data: str, step: int) -> None:
    """Adds one start of a run, at `step`, to the file at `path`: `{"starts": [...]}`.

    Warns where `data` (of `fingerprint`) is not what the first start had.
    """
    starts = _starts(path)
    if starts and starts[0].get("data") != data:
        _log.warning(
            "%s: the data differ from those this run began with (matches, lengths, sizes of files "
            "or annotations): data may move between two starts, not change; train anew in another "
            "--workdir unless this is meant",
            path,
        )
    starts.append({**record(), "data": data, "step": step})
    _write(path, {"starts": starts})


def write_evaluation(path: Path, data: str, **more: Any) -> None:
    """Writes the file of an evaluation: `record`, `data` and what else is given."""
    _write(path, {**record(), "data": data, **more})


def write_import(path: Path, file: Path, **more: Any) -> None:
    """Writes the file of a folder whose weights came out of `file`: `record`, `imported`.

    `imported` has the file's name, its SHA-256, who may have read it, and what else is given.
    """
    with open(file, "rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    readers = {name: _version(name) for name in ("torch", "safetensors")}
    imported = {"file": file.name, "sha256": digest, "packages": readers, **more}
    _write(path, {**record(), "imported": imported})


def record() -> dict[str, Any]:
    """This moment: time (UTC), command, commit, packages, devices, host."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": list(sys.argv),
        "commit": commit(Path(__file__).parent),
        "packages": {name: _version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "device_kind": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "processes": jax.process_count(),
        "host": platform.node(),
        "platform": platform.platform(),
    }


def commit(folder: Path) -> dict[str, Any] | None:
    """The git commit that `folder` is checked out at and whether files differ from it.

    None where there is no git, or `folder` is not one of a checkout's own (a virtual environment
    in somebody's repository).
    """

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_GIT_SECONDS, check=True
        )
        return done.stdout.strip()

    try:
        if not git("ls-files", "."):
            return None
        # Files that git does not know are mostly runs and data.
        changed = git("status", "--porcelain", "--untracked-files=no")
        return {"id": git("rev-parse", "HEAD"), "dirty": bool(changed)}
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None


def fingerprint(halves: Sequence[Half]) -> str:
    """A hash of what halves are made of; the same wherever they lie, no feature is read.

    Hashed are matches, lengths in seconds, names and sizes of their files below the roots, and
    the text of their label files.
    """
    hashed = hashlib.sha256()
    for half in halves:
        spec = half.spec
        names: list[list[object] | None] = []
        roots = [spec.features_root] * len(half.sources) + [spec.audio_root]
        for file, root in zip((*half.sources, half.audio), roots, strict=True):
            if not isinstance(file, ArrayFile):  # absent, or a clock
                names.append(None)
                continue
            size = file.offset + file.rows * file.columns * file.dtype.itemsize
            names.append([file.path.relative_to(root).as_posix(), size])
        labels = _digest(label_path(spec, half.match))
        item = [half.match, half.half, float(half.seconds), names, labels]
        hashed.update(json.dumps(item).encode() + b"\n")
    return f"sha256:{hashed.hexdigest()}"


def _digest(path: Path) -> str | None:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _starts(path: Path) -> list[dict[str, Any]]:
    """The starts so far; none, with a warning, where the file is damaged."""
    if not path.exists():
        return []
    try:
        starts = parse_mapping(path)["starts"]
        if not isinstance(starts, list) or not all(isinstance(start, dict) for start in starts):
            raise ValueError("its starts are no list of mappings")
    except (ValueError, KeyError) as error:
        _log.warning("%s: not readable (%s), begun anew", path, error)
        return []
    return starts


def _write(path: Path, content: dict[str, Any]) -> None:
    write_atomically(path, json.dumps(content, indent=1) + "\n")
