"""The training loop: steps, validation, early stopping, checkpoints, progress."""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import jax
from ml_collections import ConfigDict

from astra_jax.data.pipeline import TrainingStream
from astra_jax.devices import batch_sharding, host_copy, make_mesh, put_batch, replicated
from astra_jax.errors import Interrupted, UserError
from astra_jax.model import ModelConfig
from astra_jax.model.initial_values import parameter_count
from astra_jax.training.checkpoints import Checkpoints
from astra_jax.training.freezing import divided
from astra_jax.training.interruption import Interruption
from astra_jax.training.journal import Journal
from astra_jax.training.losses import LossConfig
from astra_jax.training.optimizer import make_optimizer
from astra_jax.training.state import Progress, StepValues, init_state, with_params
from astra_jax.training.step import make_train_step
from astra_jax.training.transfer import WarmStart

# Parameters to scores; the one under "score" selects the best epoch.
Validate = Callable[[Any], dict[str, float]]


class Trainer:
    """One run: its state, its step and its folder.

    `validate` is called with the parameters every `validate_every_epochs` epochs and after
    the last one; None (no validation split) keeps the last epoch as the best. `interruption` is
    asked behind each step; a validation that is interrupted is made up for on resuming.
    `warm_start` changes the parameters before step 0; a run that has a checkpoint goes on from it.
    """

    def __init__(
        self,
        config: ConfigDict,
        model_config: ModelConfig,
        stream: TrainingStream,
        workdir: Path,
        validate: Validate | None,
        interruption: Interruption,
        warm_start: WarmStart | None = None,
    ) -> None:
        check_training(config, jax.device_count())
        self.config, self.stream, self.workdir, self.validate = config, stream, workdir, validate
        self.interruption = interruption
        self.mesh = make_mesh()
        optimizer = make_optimizer(config, stream.steps_per_epoch)
        self.step = make_train_step(
            model_config,
            LossConfig.from_config(config),
            optimizer,
            stream.steps_per_epoch,
            config.seed,
            self.mesh,
            config.training.average_decay,
            config.training.accumulation_steps,
            freeze=tuple(config.freeze),
        )
        self.state = init_state(
            model_config,
            optimizer,
            config.seed,
            self.mesh,
            averaged=config.training.average_decay > 0,
            freeze=tuple(config.freeze),
        )
        # An epoch in which nothing is learned ends the run, however few steps it has.
        self._most_skipped = min(config.training.most_skipped_steps, stream.steps_per_epoch)
        self.progress = Progress()
        self._journal = Journal(config, workdir, stream.steps_per_epoch)
        self.checkpoints = Checkpoints(workdir)
        try:
            self._restore(warm_start)
        except BaseException:
            self.checkpoints.close()
            raise

    def _restore(self, warm_start: WarmStart | None) -> None:
        if self.checkpoints.latest_step() is None:
            if warm_start is not None:
                params = warm_start(host_copy(self.state.params))
                self.state = with_params(self.state, params, self.mesh)
            self._journal.cut(0)
            return
        sharding = replicated(self.mesh)
        abstract = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            self.state,
        )
        self.state, self.progress = self.checkpoints.restore_latest(abstract)
        self._journal.cut(int(self.state.step))

    def run(self) -> Progress:
        """Trains to the end (or to the early stop) and returns how it went."""
        start = int(self.state.step)
        self._started = time.monotonic() - self.progress.seconds
        if self.progress.finished:
            return self.progress
        epochs = self.config.training.epochs
        stream = self.stream.batches(start, epochs * self.stream.steps_per_epoch)
        with contextlib.closing(stream) as batches, self._journal.open(start):
            for epoch in range(self.progress.epochs, epochs):
                self._train_epoch(epoch, batches)
                self._end_epoch(epoch + 1)
                if self.progress.finished:
                    break
        return self.progress

    @contextlib.contextmanager
    def closing(self) -> Iterator[None]:
        """Closes the checkpoints in the end, however it comes."""
        try:
            yield
        except BaseException:
            # Closing waits for every process: one that failed alone would never end.
            if jax.process_count() == 1:
                with contextlib.suppress(UserError):  # a full disk's, which has been told
                    self.checkpoints.close()
            raise
        self.checkpoints.close()

    def _train_epoch(self, epoch: int, batches: Iterator[dict[str, Any]]) -> None:
        """Steps to the end of epoch `epoch` (from 0). Metrics are read one step late."""
        spe, sharding = self.stream.steps_per_epoch, batch_sharding(self.mesh)
        every = self.config.training.checkpoint_every_steps
        previous = None
        for step in range(int(self.state.step), (epoch + 1) * spe):
            batch = put_batch(self._next(batches), sharding)
            self.state, values = self.step(self.state, batch)
            self.interruption.defer()
            if previous is not None:
                self._show(step, previous)
            previous = values
            if self.interruption.asked():
                self._show(step + 1, values)
                self._save_and_end()
            if every and (step + 1) % every == 0 and (step + 1) % spe:
                self._save_latest()
        if previous is not None:
            self._show((epoch + 1) * spe, previous)

    def _next(self, batches: Iterator[dict[str, Any]]) -> dict[str, Any]:
        try:
            return next(batches)
        except UserError:
            # Who ends the run may have ended its loading processes as well.
            if jax.process_count() == 1 and self.interruption.asked():
                self._save_and_end()
            raise

    def _show(self, step: int, values: StepValues) -> None:
        """Tells of step `step` (from 1); UserError where too many were skipped in a row."""
        # Reading the values of the step before waits for that one only.
        told = jax.device_get(values)
        if (in_a_row := int(told.skipped[1])) >= self._most_skipped:
            raise self._diverged(step, in_a_row)
        self._journal.step(step, told)

    def _diverged(self, step: int, in_a_row: int) -> UserError:
        return UserError(
            f"{self.workdir}: {in_a_row} steps in a row without a finite loss and gradients, the "
            f"last one step {step} with the clips {'; '.join(self.stream.describe(step - 1))}: "
            "check the features of these clips for huge values, or train with a lower "
            "optimizer.learning_rate in another --workdir"
        )

    def _end_epoch(self, epoch: int) -> None:
        """Validates where it is due, writes the epoch's line, saves, and decides on stopping."""
        training = self.config.training
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
        self._journal.epoch(epoch, self.state, scores, self.progress)
        self._save_latest()

    def _keep_best(self, epoch: int, score: float | None) -> None:
        self.progress.best_score, self.progress.best_epoch = score, epoch
        self.checkpoints.save_best(int(self.state.step), self.state.eval_params)

    def _save_latest(self) -> None:
        self.progress.seconds = time.monotonic() - self._started
        self.checkpoints.save_latest(int(self.state.step), self.state, self.progress)

    def _save_and_end(self) -> NoReturn:
        """Ends the run by `Interrupted` when the state is on disk."""
        self._save_latest()
        self.checkpoints.wait()
        raise self.interruption.error(int(self.state.step))

    @property
    def parameters(self) -> int:
        """Size of the model."""
        return parameter_count(self.state.params)

    @property
    def trained_parameters(self) -> int:
        """Size of what trains of it."""
        return parameter_count(divided(self.state.params, self.config.freeze)[0])


def check_training(config: ConfigDict, devices: int) -> None:
    """Raises UserError where the batch can't be split over so many devices, or their parts."""
    parts = config.training.accumulation_steps
    if config.training.batch_size % (devices * parts):
        in_parts = f" in {parts} parts (training.accumulation_steps)" if parts > 1 else ""
        raise UserError(
            f"config.training.batch_size: {config.training.batch_size} clips cannot be split "
            f"over {devices} devices{in_parts}: choose a multiple of {devices * parts}"
        )
