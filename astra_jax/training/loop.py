"""The training loop: steps, validation, early stopping, checkpoints, progress."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Protocol, runtime_checkable

import jax
from jax.sharding import Mesh

from astra_jax.data.pipeline import TrainingStream
from astra_jax.devices import batch_sharding, put_batch
from astra_jax.errors import Interrupted, UserError
from astra_jax.training.checkpoints import Checkpoints
from astra_jax.training.interruption import Interruption
from astra_jax.training.journal import Journal
from astra_jax.training.pace import Stopwatch
from astra_jax.training.profile import Profile
from astra_jax.training.state import Progress, StepValues, TrainState
from astra_jax.training.step import TrainStep


@runtime_checkable
class Validate(Protocol):
    """A validation of parameters."""

    def __call__(self, params: Any) -> dict[str, float]:
        """The scores; the one under "score" selects the best epoch."""
        ...

    def try_out(self, params: Any) -> None:
        """Does a little of all that a validation does, so that what fails there fails now."""
        ...


@dataclass(frozen=True)
class TrainingConfig:
    """How long a training takes and what it keeps; each field as in `config.training`."""

    batch_size: int
    accumulation_steps: int
    epochs: int
    validate_every_epochs: int
    patience_epochs: int
    average_decay: float
    checkpoint_every_steps: int
    most_skipped_steps: int
    log_every_steps: int

    @classmethod
    def from_config(cls, training: Mapping[str, Any]) -> "TrainingConfig":
        """Reads the config's section `training`; where programs are kept is the run's matter."""
        return cls(**{key: value for key, value in training.items() if key != "compilation_cache"})

    def check_devices(self, devices: int) -> None:
        """Raises UserError where the batch can't be split over so many devices, or their parts."""
        parts = self.accumulation_steps
        if self.batch_size % (devices * parts):
            in_parts = f" in {parts} parts (training.accumulation_steps)" if parts > 1 else ""
            raise UserError(
                f"config.training.batch_size: {self.batch_size} clips cannot be split "
                f"over {devices} devices{in_parts}: choose a multiple of {devices * parts}"
            )


class Trainer:
    """Takes a run from its state to its end, or to where it is interrupted.

    `validate` is called with the parameters every `validate_every_epochs` epochs and after
    the last one; None (no validation split) keeps the last epoch as the best. `interruption` is
    asked after each step; a validation that is interrupted is made up for on resuming.
    `put` brings a batch onto the devices. `workdir` is what errors name. `profile`: what traces
    some steps, if anything does.
    """

    def __init__(
        self,
        config: TrainingConfig,
        workdir: Path,
        stream: TrainingStream,
        step: TrainStep,
        mesh: Mesh,
        state: TrainState,
        progress: Progress,
        checkpoints: Checkpoints,
        journal: Journal,
        validate: Validate | None,
        interruption: Interruption,
        put: Callable[..., dict[str, Any]] = put_batch,
        profile: Profile | None = None,
    ) -> None:
        self.config, self.workdir, self.stream = config, workdir, stream
        self.step, self.mesh, self.state, self.progress = step, mesh, state, progress
        self.checkpoints, self.journal, self.validate = checkpoints, journal, validate
        self.interruption, self._put, self._profile = interruption, put, profile
        # Counted here: the state's own count lies on the devices.
        self._taken = int(jax.device_get(state.step))
        # An epoch in which nothing is learned ends the run, however few steps it has.
        self._most_skipped = min(config.most_skipped_steps, stream.steps_per_epoch)
        journal.cut(self._taken)

    def run(self) -> Progress:
        """Trains to the end (or to the early stop) and returns how it went."""
        start = self._taken
        self._started = time.monotonic() - self.progress.seconds
        if self.progress.finished:
            return self.progress
        if self.progress.best_epoch:
            self.checkpoints.keep_best(self.progress.best_epoch * self.stream.steps_per_epoch)
        epochs = self.config.epochs
        stream = self.stream.batches(start, epochs * self.stream.steps_per_epoch)
        profiling = contextlib.closing(self._profile) if self._profile else contextlib.nullcontext()
        with (
            contextlib.closing(stream) as batches,
            self.journal.open(start),
            contextlib.closing(Stopwatch()) as self._stopwatch,
            profiling,
        ):
            for epoch in range(self.progress.epochs, epochs):
                self._train_epoch(epoch, batches)
                self._end_epoch(epoch + 1)
                if self.progress.finished:
                    break
        return self.progress

    def _train_epoch(self, epoch: int, batches: Iterator[dict[str, Any]]) -> None:
        """Steps to the end of epoch `epoch` (from 0). Metrics are read one step late.

        So the devices have the next step to compute while the host looks at the last one, and a
        batch travels to them while they compute the step before.
        """
        spe, sharding = self.stream.steps_per_epoch, batch_sharding(self.mesh)
        every = self.config.checkpoint_every_steps
        previous = None
        self._stopwatch.go_on()
        while self._taken < (epoch + 1) * spe:
            with jax.profiler.StepTraceAnnotation("train", step_num=self._taken + 1):
                batch = self._put(self._next(batches), sharding)
                self.state, values = self.step(self.state, batch)
                self._stopwatch.dispatched(values)
                self.interruption.defer()
                if previous is not None:
                    self._show(self._taken, previous)
            self._taken += 1
            previous = values
            if self._profile is not None:
                self._profile.taken(values)
            ends = self.interruption.asked()
            if ends or (every and self._taken % every == 0 and self._taken % spe):
                # A step that a checkpoint holds has been told of: nobody will take it again.
                self._show(self._taken, values)
                previous = None
                if ends:
                    self._save_and_end()
                self._save_latest()
        if previous is not None:
            self._show(self._taken, previous)
        self._stopwatch.pause()

    def _next(self, batches: Iterator[dict[str, Any]]) -> dict[str, Any]:
        try:
            return self._stopwatch.next_of(batches)
        except UserError:
            # Who ends the run may have ended its loading processes as well.
            if jax.process_count() == 1 and self.interruption.asked():
                self._save_and_end()
            raise

    def _show(self, step: int, values: StepValues) -> None:
        """Reports step `step` (from 1); UserError where too many were skipped in a row."""
        # Reading the values of the step before waits for that one only.
        fetched = jax.device_get(values)
        if (in_a_row := int(fetched.skipped[1])) >= self._most_skipped:
            raise self._divergence_error(step, in_a_row)
        self.journal.step(step, fetched, self._stopwatch.read())

    def _divergence_error(self, step: int, in_a_row: int) -> UserError:
        return UserError(
            f"{self.workdir}: {in_a_row} steps in a row without a finite loss and gradients, the "
            f"last one step {step} with the clips {'; '.join(self.stream.describe(step - 1))}: "
            "check the features of these clips for huge values, or train with a lower "
            "optimizer.learning_rate in another --workdir"
        )

    def _end_epoch(self, epoch: int) -> None:
        """Validates where it is due, writes the epoch's line, saves, and decides on stopping."""
        training = self.config
        last = epoch == training.epochs
        scores: dict[str, float] = {}
        if self.validate is not None and (last or epoch % training.validate_every_epochs == 0):
            try:
                scores = self.validate(self.state.eval_params)
            except Interrupted:
                self._save_and_end()
            best = self.progress.best_score
            if best is None or scores["score"] >= best:
                self._keep_best(epoch, scores["score"])
            stale = epoch - self.progress.best_epoch
            last = last or stale >= training.patience_epochs
        elif self.validate is None and last:
            self._keep_best(epoch, None)
        self.progress.finished, self.progress.epochs = last, epoch
        self.progress.seconds = time.monotonic() - self._started
        self.journal.epoch(epoch, self.state, scores, self.progress, self._stopwatch.read())
        self._save_latest()

    def _keep_best(self, epoch: int, score: float | None) -> None:
        self.progress.best_score, self.progress.best_epoch = score, epoch
        self.checkpoints.save_best(self._taken, self.state.eval_params)

    def _save_latest(self) -> None:
        self.progress.seconds = time.monotonic() - self._started
        self.checkpoints.save_latest(self._taken, self.state, self.progress)

    def _save_and_end(self) -> NoReturn:
        """Ends the run by `Interrupted` when the state is on disk."""
        self._save_latest()
        self.checkpoints.wait()
        raise self.interruption.error(self._taken)
