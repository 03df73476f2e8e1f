"""Kills watched runs at chosen moments, says what was hit, compares the end with another run's."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from helpers.processes import environment
from helpers.watched_run import TEMPORARY, is_wanted
from jax.sharding import SingleDeviceSharding

HERE = Path(__file__).parent
TIMES = ("seconds", "seconds_waited", "clips_per_second")
"""The fields of a run's JSON files that differ from run to run: how long it took."""
STALLED_SECONDS = 900.0

Event = dict[str, Any]


@dataclass(frozen=True)
class Aim:
    """A moment: `delay` seconds after a process's `count`-th `event` at `step` or later.

    Where `hold` is set the process stands still at the first one.
    """

    event: str
    step: int = 0
    kind: str | None = None  # of checkpoint, where the event is a write
    count: int = 1
    delay: float = 0.0
    hold: bool = False


@dataclass(frozen=True)
class Hit:
    """What a kill met: the phase, the last step begun, and what lay half-written."""

    phase: str  # start-up, training, checkpoint write or validation
    step: int | None
    resumed: int | None
    left: tuple[str, ...]


class WatchedRun:
    """A training in `workdir` that `astra ARGUMENTS` starts, or goes on with, in a process.

    The log and the output lie beside the workdir. Programs are compiled once, into `compiled`.
    `model`: a name of `watched_run.MODELS`. `variables` are set in its environment.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        workdir: Path,
        compiled: Path,
        model: str = "astra",
        **variables: str,
    ) -> None:
        self.workdir = workdir
        self.log = workdir.with_name(f"{workdir.name}.log")
        self.output = workdir.with_name(f"{workdir.name}.out")
        self._arguments = [model, *arguments, "--workdir", str(workdir)]
        self._environment = environment(compiled, **variables)

    def events(self) -> list[Event]:
        """All that was logged, by every process so far."""
        if not self.log.exists():
            return []
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def finish(self) -> None:
        """Runs to the end. Raises RuntimeError with the last output where it fails."""
        process = self._start(None)
        try:
            code = process.wait()
        finally:
            _kill_group(process)
        if code != 0:
            raise RuntimeError(f"exit code {code}: {self._said()}")

    def kill_at(self, aim: Aim) -> Hit:
        """Starts a process and kills it, with all it started, by SIGKILL at that moment.

        Raises RuntimeError where the process ends before.
        """
        before = len(self.events())
        size = self.log.stat().st_size if self.log.exists() else 0
        process = self._start(aim if aim.hold else None)
        try:
            self._wait_for(aim, process, size)
            time.sleep(aim.delay)
        finally:
            _kill_group(process)
        if process.returncode != -signal.SIGKILL:
            raise RuntimeError(
                f"ended with exit code {process.returncode} before {aim}: {self._said()}"
            )
        return what_was_hit(self.events()[before:], self.workdir)

    def _start(self, hold: Aim | None) -> subprocess.Popen:
        held = json.dumps(hold and dataclasses.asdict(hold))
        script = [sys.executable, str(HERE / "watched_run.py"), str(self.log), held]
        with self.output.open("a") as output:
            return subprocess.Popen(
                [*script, *self._arguments],
                env=self._environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def _wait_for(self, aim: Aim, process: subprocess.Popen, offset: int) -> None:
        wanted, found, rest, heard = dataclasses.asdict(aim), 0, b"", time.monotonic()
        while process.poll() is None:
            if time.monotonic() - heard > STALLED_SECONDS:
                raise RuntimeError(f"no event for {STALLED_SECONDS:.0f} s: {self._said()}")
            new = _read_from(self.log, offset)
            offset += len(new)
            *lines, rest = (rest + new).split(b"\n")
            for line in lines:
                heard = time.monotonic()
                found += is_wanted(json.loads(line), wanted)
                if found >= aim.count:
                    return
            time.sleep(0.003)

    def _said(self) -> str:
        return self.output.read_text(errors="replace")[-2000:]


def _kill_group(process: subprocess.Popen) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _read_from(path: Path, offset: int) -> bytes:
    if not path.exists():
        return b""
    with path.open("rb") as file:
        file.seek(offset)
        return file.read()


def what_was_hit(events: Sequence[Event], workdir: Path) -> Hit:
    """The phase in which a process ended whose events these are.

    "checkpoint write" only where the temporary folder of an unfinished write is left.
    """
    steps = [event["step"] for event in events if event["event"] == "step"]
    resumed = [event["step"] for event in events if event["event"] == "resumes"]
    names = [event["event"] for event in events]
    writes = {
        f"{event['kind']}/{event['step']}" for event in events if event["event"] == "write begins"
    }
    root = workdir / "checkpoints"
    unfinished = [
        name
        for name in sorted(writes)
        if (root / f"{name}{TEMPORARY}").exists() and not (root / name).exists()
    ]
    if not resumed:
        phase = "start-up"
    elif names.count("validation begins") > names.count("validation ends"):
        phase = "validation"
    elif unfinished:
        phase = "checkpoint write"
    else:
        phase = "training"
    return Hit(
        phase,
        max(steps, default=None),
        max(resumed, default=None),
        tuple(_inventory(root / f"{name}{TEMPORARY}", root) for name in unfinished),
    )


def _inventory(folder: Path, root: Path) -> str:
    files = [path for path in folder.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    return f"{folder.relative_to(root)}: {len(files)} file(s), {size:,} bytes"


def history_faults(killed: Sequence[Event], whole: Sequence[Event]) -> list[str]:
    """Steps that are twice or missing in the history that counts, and batches that differ.

    A process that goes on from checkpoint s cuts the history at s; every step it then takes must
    be the next one, on the batch of that number in the run that was left alone.
    """
    batches = [event["batch"] for event in whole if event["event"] == "step"]
    faults, history = [], 0
    for event in killed:
        if event["event"] == "resumes":
            if event["step"] > history:
                faults.append(f"goes on at step {event['step']}, but only {history} were taken")
            history = event["step"]
        elif event["event"] == "step":
            step = event["step"]
            if step != history:
                faults.append(f"step {step} follows {history - 1}")
            if step >= len(batches) or event["batch"] != batches[step]:
                faults.append(f"step {step}: another batch")
            history = step + 1
    if history != len(batches):
        faults.append(f"{history} steps, not {len(batches)}")
    return faults


def end_faults(killed: Path, whole: Path) -> list[str]:
    """What differs between the ends of two runs, but for how long they took."""
    faults = []
    for kind in ("latest", "best"):
        steps = [_newest(workdir / "checkpoints" / kind) for workdir in (killed, whole)]
        if steps[0] != steps[1] or steps[0] is None:
            faults.append(f"{kind}: checkpoint {steps[0]}, not {steps[1]}")
            continue
        item = {"latest": "state", "best": "params"}[kind]
        ours, theirs = (
            arrays_of(workdir / "checkpoints" / kind / str(steps[0]) / item)
            for workdir in (killed, whole)
        )
        if ours.keys() != theirs.keys():
            faults.append(f"{kind}: other arrays")
        faults += [
            f"{kind}: {name} differs"
            for name in ours.keys() & theirs.keys()
            if ours[name].tobytes() != theirs[name].tobytes()
        ]
    for file in ("metrics.jsonl", "summary.json", _progress(killed)):
        if _without_times(killed / file) != _without_times(whole / file):
            faults.append(f"{file} differs")
    return faults


def arrays_of(folder: Path) -> dict[str, np.ndarray]:
    """Every array of a checkpoint's state or params folder, by name."""
    with ocp.StandardCheckpointer() as checkpointer:
        # Where the arrays lay is another matter: those of two processes are read here by one.
        shapes = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(
                leaf.shape, leaf.dtype, sharding=SingleDeviceSharding(jax.devices()[0])
            ),
            checkpointer.metadata(folder.absolute()).item_metadata.tree,
        )
        state = checkpointer.restore(folder.absolute(), shapes)
    leaves = jax.tree.leaves_with_path(state)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def _newest(folder: Path) -> int | None:
    return max((int(path.name) for path in folder.glob("*") if path.name.isdigit()), default=None)


def _progress(workdir: Path) -> str:
    step = _newest(workdir / "checkpoints" / "latest")
    return f"checkpoints/latest/{step}/progress/metadata"


def _without_times(path: Path) -> list[Event]:
    """The JSON objects of a file, one or one a line, but for their times."""
    text = path.read_text()
    rows = [json.loads(text)] if path.suffix == ".json" else map(json.loads, text.splitlines())
    return [{key: row[key] for key in row if key not in TIMES} for row in rows]
