"""The runs below a folder, as their files tell them, and how the configs of two differ.

Nothing of JAX is imported here: a list of runs takes no seconds.
"""

import json
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from astra_jax.config.saved import differences, flatten
from astra_jax.errors import UserError
from astra_jax.evaluation.table import align_columns
from astra_jax.files import parse_mapping
from astra_jax.runs.folder import RunFolder

LEVELS = 4
"""How many folders below the one given a run may lie."""


@dataclass
class Run:
    """What a run's folder says; None where it says nothing.

    Scores are fractions. `scores`: of the evaluations that lie in the run's folder, tight and
    loose. `started`: ISO, UTC. `damaged`: a line for each file that can't be read.
    """

    name: str
    state: str = ""
    epochs: int | None = None
    best_epoch: int | None = None
    validation: float | None = None
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    seconds: float | None = None
    started: str | None = None
    damaged: list[str] = field(default_factory=list)


def find_runs(root: Path) -> list[Run]:
    """The runs in `root`, and below it down to `LEVELS` folders, by name.

    A run is a folder with a config and anything that a training leaves beside it.
    Raises UserError where `root` is no folder.
    """
    root = root.expanduser()
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; name the one that runs lie in")
    return [
        read_run(RunFolder(folder), _name(folder, root)) for folder in _folders(root, LEVELS, set())
    ]


def read_run(folder: RunFolder, name: str) -> Run:
    """What the files of one run say; a file that is damaged becomes a line in `damaged`."""
    run = Run(name)
    config = _object(folder.config_path, run)
    lines = _lines(folder.metrics_path, run)
    summary = _object(folder.summary_path, run)
    provenance = _object(folder.provenance_path, run)
    starts = provenance.get("starts")
    scored = [line for line in lines if _number(_get(line, "validation", "score")) is not None]
    best = max(scored, key=lambda e: (e["validation"]["score"], e["epoch"]), default={})
    last = lines[-1] if lines else {}
    run.epochs = summary.get("epochs", last.get("epoch"))
    run.best_epoch = summary.get("best_epoch", best.get("epoch"))
    score = _get(best, "validation", "score")
    run.validation = _number(summary.get("best_validation_tight", score))
    run.seconds = _number(summary.get("seconds", last.get("seconds")))
    if "imported" in provenance:  # astra import-torch
        run.state = "imported"
    else:
        run.state = _state(folder, config, last, finished=bool(summary))
    run.scores = dict(_scores(folder, run))
    first = starts[0] if isinstance(starts, list) and starts else None
    started = _get(first, "started")
    if not isinstance(started, str):
        try:
            modified = datetime.fromtimestamp(folder.config_path.stat().st_mtime, UTC)
            started = modified.isoformat(timespec="seconds")
        except OSError:  # a link to nowhere, or a run that is being deleted
            started = ""
    run.started = started
    return run


def table(runs: Sequence[Run]) -> str:
    """Readable text: a line a run, scores in percent; then a line for each damaged file."""
    titles = ("run", "state", "epochs", "best", "valid", "tight / loose", "seconds", "started")
    text = align_columns([titles] + [_row(run) for run in runs])
    return "\n".join([text] + [line for run in runs for line in run.damaged])


def as_json(runs: Sequence[Run]) -> str:
    """The runs as a JSON list of mappings."""
    return json.dumps([asdict(run) for run in runs], indent=1)


def config_differences(root: Path, first: str, second: str) -> dict[str, list[Any]]:
    """Config keys that differ between two runs, named as in the list (or by path): both values.

    A key that an older run lacks has the default, as when the run is evaluated.
    Raises UserError where one is no run, or its config is damaged.
    """
    configs = [_find(root.expanduser(), name).config() for name in (first, second)]
    values = [flatten(config) for config in configs]
    return {key: [of.get(key) for of in values] for key in differences(*configs)}


def difference_table(found: dict[str, list[Any]], first: str, second: str) -> str:
    """Readable text of `config_differences`: key, the first's value, the second's."""
    rows = [("key", first, second)]
    rows += [(key, json.dumps(a), json.dumps(b)) for key, (a, b) in found.items()]
    return align_columns(rows)


def _folders(folder: Path, levels: int, seen: set[Path]) -> Iterator[Path]:
    try:
        names = {path.name: path.is_dir() for path in folder.iterdir()}
        real = folder.resolve()
    except (OSError, RuntimeError):  # not ours to read, or a circle of links
        return
    if real in seen:
        return
    seen.add(real)
    if RunFolder(folder).is_run():
        yield folder
        return
    below = sorted(folder / name for name, is_folder in names.items() if is_folder)
    for path in below if levels else ():
        yield from _folders(path, levels - 1, seen)


def _name(folder: Path, root: Path) -> str:
    return folder.resolve().name if folder == root else folder.relative_to(root).as_posix()


def _find(root: Path, name: str) -> RunFolder:
    below = root / name
    return RunFolder(below if below.is_dir() else Path(name))


def _object(path: Path, run: Run) -> dict[str, Any]:
    """The mapping in a JSON file; empty where there is no file, or it is damaged."""
    if not path.exists():
        return {}
    try:
        return parse_mapping(path)
    except ValueError as error:
        run.damaged.append(f"{path}: damaged, left out ({error})")
        return {}


def _lines(path: Path, run: Run) -> list[dict[str, Any]]:
    """The lines of epochs in `metrics.jsonl` that are whole."""
    if not path.exists():
        return []
    try:
        texts = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        run.damaged.append(f"{path}: damaged, left out ({error.strerror})")
        return []
    found, of_steps = [], 0
    for text in texts:
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            line = None
        if not isinstance(_get(line, "step"), int):
            continue
        if isinstance(_get(line, "epoch"), int):
            found.append(line)
        elif isinstance(line, dict) and "epoch" not in line:
            of_steps += 1
    if damaged := len(texts) - len(found) - of_steps:
        run.damaged.append(f"{path}: {damaged} damaged line(s) left out")
    return found


def _state(folder: RunFolder, config: dict[str, Any], last: dict[str, Any], finished: bool) -> str:
    if finished:
        return "finished"
    epochs = _get(config, "training", "epochs")
    total = ""
    if last.get("epoch") and isinstance(epochs, int):
        total = f" of {last['step'] // last['epoch'] * epochs}"
    return f"{_at_work(folder.lock_path)} at step {folder.latest_step()}{total}"


def _at_work(lock: Path) -> str:
    """Whether the process that wrote a run's lock is alive: a killed one leaves its lock."""
    if not lock.exists():
        return "stopped"
    try:
        holder = json.loads(lock.read_text(encoding="utf-8"))
        host, process = holder["host"], holder["process"]
        if host != socket.gethostname() or not isinstance(process, int) or process < 1:
            return "running or killed"
        os.kill(process, 0)  # sends nothing
    except ProcessLookupError:
        return "killed"
    except PermissionError:  # alive, and somebody else's
        return "running"
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return "running or killed"
    return "running"


def _scores(folder: RunFolder, run: Run) -> Iterator[tuple[str, dict[str, float]]]:
    for evaluation in folder.evaluations():
        path = evaluation.metrics_path
        blocks = _object(path, run)
        found = {name: _number(_get(blocks, name, "a_mAP")) for name in ("tight", "loose")}
        values = {name: value for name, value in found.items() if value is not None}
        if len(values) == len(found):
            yield path.parent.name, values
        elif blocks:
            run.damaged.append(f"{path}: damaged, left out (no tight and loose a_mAP)")


def _get(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _number(value: Any) -> float | None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    # Also not the infinite, nor a whole number that no float holds: no score is such a one.
    return value if number and abs(value) <= sys.float_info.max else None


def _row(run: Run) -> tuple[str, ...]:
    scores = ", ".join(
        f"{name} {100 * of['tight']:.2f} / {100 * of['loose']:.2f}"
        for name, of in run.scores.items()
    )
    shown = (run.epochs, run.best_epoch)
    return (
        run.name,
        run.state,
        *("-" if value is None else str(value) for value in shown),
        "-" if run.validation is None else f"{100 * run.validation:.2f}",
        scores or "-",
        "-" if run.seconds is None else f"{run.seconds:.0f}",
        (run.started or "-").replace("T", " ")[:16],
    )
