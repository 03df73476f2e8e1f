"""What a training will need, measured on this machine without leaving anything behind."""

import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from astra_jax.config.load import copy_config
from astra_jax.data.cache import close_all
from astra_jax.data.simulation.writer import SPEC_FILE, write_matches
from astra_jax.devices import batch_sharding, in_32_bits, put_batch
from astra_jax.evaluation.table import align_columns
from astra_jax.model import count_parameters
from astra_jax.runs.components import USUAL, Components, Computation, build
from astra_jax.runs.folder import RunFolder
from astra_jax.runs.memory import TRAINING, explain_shortage
from astra_jax.runs.prepare import Prepared, prepare
from astra_jax.runs.settings import Settings, resolve
from astra_jax.training.interruption import Interruption
from astra_jax.training.state import TrainState

STEPS, SECONDS = 10, 20.0
"""At most so many steps are measured, and at most so long."""


@dataclass(frozen=True)
class DryRun:
    """What was found out. Bytes and FLOPs are those of one device; None where XLA says nothing.

    `memory`: what the bytes of `memory_total` are for. `steps_measured`: those that
    `seconds_per_step` is of, after one more that warmed up.
    """

    parameters: int
    memory: dict[str, int]
    flops_per_step: float | None
    compile_seconds: float
    seconds_per_step: float
    steps_measured: int
    steps_per_epoch: int
    epochs: int
    shapes: dict[str, str]

    @property
    def memory_total(self) -> int | None:
        """Bytes that one device needs while it takes a step."""
        return sum(self.memory.values()) if "activations and gradients" in self.memory else None


@in_32_bits
def measure(
    config: ConfigDict,
    workdir: Path,
    components: Components = USUAL,
    most_steps: int = STEPS,
) -> DryRun:
    """Builds what `runs.train` would build, compiles the step and takes a few.

    Nothing is written in `workdir`: simulated matches that are not there yet go to a temporary
    folder that is removed.

    Raises:
        UserError: whatever would stop the training before it begins, memory too small among it.
    """
    _open(config, RunFolder(workdir))  # before anything is written
    with (
        tempfile.TemporaryDirectory(prefix="astra_dry_run_", ignore_cleanup_errors=True) as name,
        explain_shortage(TRAINING),
    ):
        folder = RunFolder(Path(name))

        def before_exit() -> None:
            close_all()
            shutil.rmtree(name, ignore_errors=True)

        interruption = Interruption(at_once=before_exit, goes_on=False)
        with interruption.watch():
            settings = _simulate(config, RunFolder(workdir), folder)
            prepared = prepare(settings, folder, components.make_model(settings.model))
            run = build(settings, prepared.stream.steps_per_epoch, components)
            with prepared.cache:
                return _measure_steps(run, prepared, settings, most_steps)


def _open(config: ConfigDict, folder: RunFolder) -> Settings:
    settings = Settings.from_config(resolve(config, folder))
    settings.training.check_devices(jax.device_count())
    settings.trackers.check_installed()
    return settings


def _simulate(config: ConfigDict, run: RunFolder, temporary: RunFolder) -> Settings:
    """The settings with simulated matches where they lie already, or written apart."""
    settings = _open(config, run)
    if settings.simulation is None or (settings.simulation_root / SPEC_FILE).exists():
        return settings
    apart = copy_config(config)
    apart.data.root = None
    settings = _open(apart, temporary)
    assert settings.simulation is not None
    # Each process its own: they need not share a temporary folder.
    write_matches(settings.simulation_root, settings.simulation)
    return settings


def _measure_steps(
    run: Computation, prepared: Prepared, settings: Settings, most_steps: int
) -> DryRun:
    stream, sharding = prepared.stream, batch_sharding(run.mesh)
    with contextlib.closing(stream.batches(0, 1)) as batches:
        batch = put_batch(next(batches), sharding)
    state = run.draw_state()
    started = time.monotonic()
    compiled = run.step.lower(state, batch).compile()
    compile_seconds = time.monotonic() - started
    needed = _memory(compiled, state, batch)
    parameters, shapes = count_parameters(state.params), _shapes(batch)
    with contextlib.closing(stream.batches(0, most_steps + 1)) as batches:
        # The state is donated: it must not be looked at again.
        seconds, steps = _time_steps(compiled, state, batches, sharding)
    return DryRun(
        parameters=parameters,
        memory=needed,
        flops_per_step=_flops(compiled),
        compile_seconds=compile_seconds,
        seconds_per_step=seconds,
        steps_measured=steps,
        steps_per_epoch=stream.steps_per_epoch,
        epochs=settings.training.epochs,
        shapes=shapes,
    )


def _time_steps(
    compiled: Any, state: Any, batches: Iterator[dict[str, Any]], sharding: jax.sharding.Sharding
) -> tuple[float, int]:
    """Seconds a step, loading included, and how many were timed; one before them warms up."""
    state, values = compiled(state, put_batch(next(batches), sharding))
    jax.block_until_ready(values)
    started, steps = time.monotonic(), 0
    # Processes must take the same number of steps: only one alone may look at its clock.
    alone = jax.process_count() == 1
    for batch in batches:
        before = values
        state, values = compiled(state, put_batch(batch, sharding))
        jax.block_until_ready(before)
        steps += 1
        if alone and time.monotonic() - started > SECONDS:
            break
    jax.block_until_ready(values)
    return (time.monotonic() - started) / steps, steps


def _memory(compiled: Any, state: TrainState, batch: Any) -> dict[str, int]:
    """Bytes on one device: arguments + temporaries + results - results that reuse arguments."""
    needed = {
        "parameters": _bytes(state.params),
        "optimiser": _bytes(state.optimizer),
        "average of the weights": _bytes(state.average),
        "batch": _bytes(batch),
    }
    try:
        analysis = compiled.memory_analysis()
        temporary = analysis.temp_size_in_bytes
        total = analysis.argument_size_in_bytes + temporary
        total += analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    except (AttributeError, NotImplementedError, jax.errors.JaxRuntimeError):
        return needed
    needed["activations and gradients"] = temporary
    needed["other"] = max(0, total - sum(needed.values()))
    return needed


def _bytes(tree: Any) -> int:
    return sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(tree))


def _flops(compiled: Any) -> float | None:
    try:
        analysis = compiled.cost_analysis()
    except (NotImplementedError, jax.errors.JaxRuntimeError):
        return None
    if isinstance(analysis, list):  # older versions: one a computation
        analysis = analysis[0] if analysis else None
    flops = (analysis or {}).get("flops", -1.0)
    return float(flops) if flops > 0 else None


def _shapes(batch: Any) -> dict[str, str]:
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): f"{leaf.shape} {leaf.dtype}"
        for path, leaf in jax.tree.leaves_with_path(batch)
    }


def report(run: DryRun) -> str:
    """Readable text."""
    total = run.memory_total
    parts = ", ".join(f"{name} {_size(size)}" for name, size in run.memory.items() if size)
    epoch = run.steps_per_epoch * run.seconds_per_step
    kind, devices = jax.devices()[0].device_kind, jax.device_count()
    flops = "not known here"
    if run.flops_per_step is not None:
        rate = run.flops_per_step / run.seconds_per_step
        flops = f"{run.flops_per_step:.3g} ({rate:.3g} a second)"
    rows = {
        "parameters": f"{run.parameters:,}",
        "memory a device": f"{'not known here' if total is None else _size(total)}: {parts}",
        "FLOPs a step": f"{flops}, each device, as XLA counts (a loop's body once)",
        "compilation": f"{run.compile_seconds:.1f} s",
        "a step": f"{run.seconds_per_step:.3g} s, measured over {run.steps_measured} steps on "
        f"this machine, {devices} device(s) ({kind})",
        "an epoch": f"{run.steps_per_epoch:,} steps, about {_duration(epoch)}",
        "the run": f"{run.epochs:,} epochs, about {_duration(epoch * run.epochs)}, validation not "
        "counted; it may stop earlier",
        "a batch": "",
    }
    lines = [f"  {name}: {shape}" for name, shape in run.shapes.items()]
    return "\n".join([align_columns(list(rows.items())), *lines, "dry run: nothing was written"])


def _size(size: int) -> str:
    for unit, power in (("GB", 9), ("MB", 6), ("kB", 3)):
        if size >= 10**power:
            return f"{size / 10**power:.3g} {unit}"
    return f"{size} B"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.3g} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
