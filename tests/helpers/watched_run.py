"""`astra`, watched: a log says what a training does as it does it, so that it can be killed there.

    python watched_run.py LOG HOLD MODEL ARGUMENTS...

Each line of LOG is a JSON object written by one call, so that a kill leaves whole lines: an event,
its time, its step. HOLD (JSON, `null`: none) is `{"event": ..., "step": ..., "kind": ...}`: at the
first such event at that step or later the process stands still and waits for its kill; a run of
milliseconds can be hit where it is aimed at. MODEL is one of MODELS.
"""

import hashlib
import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from helpers.noisy import Noisy

from astra_jax import cli
from astra_jax.model import ASTRA
from astra_jax.runs.components import Components
from astra_jax.runs.folder import RunFolder
from astra_jax.training.loop import Trainer

TEMPORARY = ".orbax-checkpoint-tmp"
"""What Orbax adds to the name of a folder that isn't complete yet."""
LONG_SECONDS = 600.0
MODELS = {"astra": ASTRA, "noisy": Noisy}


class Log:
    """Appends events to a file; stands still at the one to `hold`, and at all after it."""

    def __init__(self, path: Path, hold: dict[str, Any] | None) -> None:
        self._descriptor = os.open(path, os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o644)
        self._hold, self._held = hold, threading.Event()

    def write(self, event: str, **values: Any) -> None:
        if not self._held.is_set():
            if is_wanted({"event": event, **values}, self._hold):
                self._held.set()
            line = json.dumps({"event": event, "time": time.time(), **values}) + "\n"
            os.write(self._descriptor, line.encode())
        if self._held.is_set():
            time.sleep(LONG_SECONDS)


def is_wanted(event: dict[str, Any], wanted: dict[str, Any] | None) -> bool:
    """Whether an event is of the wanted name and kind (None: any), at its step or later."""
    return (
        wanted is not None
        and event["event"] == wanted["event"]
        and event.get("step", 0) >= wanted["step"]
        and wanted["kind"] in (None, event.get("kind"))
    )


def hash_of(batch: dict[str, Any]) -> str:
    """Of the names, shapes, types and bytes of a batch."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree.leaves_with_path(batch):
        array = np.asarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.shape} {array.dtype}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def watch(trainer: Trainer, log: Log) -> None:
    """Puts the log around the step, the validation and the checkpoints of a trainer."""
    step, validate, checkpoints = trainer.step, trainer.validate, trainer.checkpoints

    def watched_step(state: Any, batch: Any) -> Any:
        # Reading the state's own count waits for the step before; the values stay the same.
        log.write("step", step=int(state.step), batch=hash_of(batch))
        return step(state, batch)

    def watched_validate(params: Any) -> dict[str, float]:
        count = int(trainer.state.step)
        log.write("validation begins", step=count)
        scores = validate(params)
        log.write("validation ends", step=count)
        return scores

    def watched_save(kind: str, save: Any) -> Any:
        def saved(count: int, *args: Any) -> None:
            log.write("write begins", kind=kind, step=count)
            save(count, *args)
            run = RunFolder(trainer.workdir)
            kept = run.latest_checkpoints if kind == "latest" else run.best_checkpoints
            folder = kept / str(count)
            threading.Thread(target=_await, args=(folder, log, kind), daemon=True).start()

        return saved

    trainer.step = watched_step
    trainer.validate = watched_validate if validate is not None else None
    checkpoints.save_latest = watched_save("latest", checkpoints.save_latest)
    checkpoints.save_best = watched_save("best", checkpoints.save_best)


def _await(folder: Path, log: Log, kind: str) -> None:
    """Saving goes on in the background; the folder appears when it is complete."""
    deadline = time.monotonic() + LONG_SECONDS
    while not folder.exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    log.write("written", kind=kind, step=int(folder.name))


def watch_renames(log: Log) -> None:
    """Logs when Orbax is about to give a finished part of a checkpoint, or all, its name."""
    rename = os.rename

    def watched_rename(source: Any, *args: Any, **kwargs: Any) -> None:
        parts = Path(source).parts
        if TEMPORARY in str(source) and "checkpoints" in parts:
            kind, name, *part = parts[parts.index("checkpoints") + 1 :]
            log.write("renames", kind=kind, step=int(name.partition(".")[0]), part=part)
        rename(source, *args, **kwargs)

    os.rename = watched_rename


def main() -> None:
    path, hold, model, *arguments = sys.argv[1:]
    log = Log(Path(path), json.loads(hold))
    log.write("starts", pid=os.getpid())
    watch_renames(log)

    class WatchedTrainer(Trainer):
        def run(self) -> Any:
            log.write("resumes", step=int(self.state.step))
            watch(self, log)
            return super().run()

    components = Components(make_model=MODELS[model], make_trainer=WatchedTrainer)
    code = cli.main(arguments, components)
    log.write("ends", code=code)
    sys.exit(code)


if __name__ == "__main__":
    main()
