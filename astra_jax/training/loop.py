"""The training loop: steps, validation, early stopping, checkpoints, progress."""

import contextlib
import dataclasses
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from jaxtyping import Array, Float
from ml_collections import ConfigDict
from tqdm import tqdm

from astra_jax.data.pipeline import TrainingStream, put_batch
from astra_jax.errors import UserError
from astra_jax.files import write_atomically
from astra_jax.model import ModelConfig
from astra_jax.training.checkpoints import Checkpoints
from astra_jax.training.losses import LossConfig
from astra_jax.training.optimizer import learning_rate_schedule, make_optimizer
from astra_jax.training.state import (
    batch_sharding,
    init_state,
    make_mesh,
    make_train_step,
    parameter_count,
    replicated,
)

# Parameters to scores; the one under "score" selects the best epoch.
Validate = Callable[[Any], dict[str, float]]


@dataclasses.dataclass
class Progress:
    """What the loop remembers beside the state; kept in each latest checkpoint."""

    best_score: float | None = None
    best_epoch: int = 0
    seconds: float = 0.0
    finished: bool = False


class Trainer:
    """One run: its state, its step and its folder.

    `validate` is called with the parameters every `validate_every_epochs` epochs and after
    the last one; None (no validation split) keeps the last epoch as the best.
    """

    def __init__(
        self,
        config: ConfigDict,
        model_config: ModelConfig,
        stream: TrainingStream,
        workdir: Path,
        validate: Validate | None,
    ) -> None:
        check_training(config, jax.device_count())
        self.config, self.stream, self.workdir, self.validate = config, stream, workdir, validate
        self.mesh = make_mesh()
        optimizer = make_optimizer(config, stream.steps_per_epoch)
        self.schedule: optax.Schedule = learning_rate_schedule(config, stream.steps_per_epoch)
        self.total_steps = stream.steps_per_epoch * config.training.epochs
        self.step = make_train_step(
            model_config,
            LossConfig.from_config(config),
            optimizer,
            stream.steps_per_epoch,
            config.seed,
            self.mesh,
            config.training.average_decay,
        )
        self.state = init_state(
            model_config,
            optimizer,
            config.seed,
            self.mesh,
            averaged=config.training.average_decay > 0,
        )
        self._norm = jax.jit(optax.global_norm)
        self.progress = Progress()
        self.checkpoints = Checkpoints(workdir)
        try:
            self._restore()
        except BaseException:
            self.checkpoints.close()
            raise

    def _restore(self) -> None:
        if self.checkpoints.latest_step() is None:
            _truncate_metrics(self.workdir / "metrics.jsonl", 0)
            return
        sharding = replicated(self.mesh)
        abstract = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            self.state,
        )
        self.state, progress = self.checkpoints.restore_latest(abstract)
        self.progress = Progress(**progress)
        _truncate_metrics(self.workdir / "metrics.jsonl", int(self.state.step))

    def run(self) -> Progress:
        """Trains to the end (or to the early stop) and returns how it went."""
        spe = self.stream.steps_per_epoch
        start = int(self.state.step)
        self._started = time.monotonic() - self.progress.seconds
        with self._checkpoints_closed():
            if self.progress.finished:
                return self.progress
            with (
                contextlib.closing(self.stream.batches(start, self.total_steps)) as batches,
                self._progress_bar(start) as bar,
            ):
                for epoch in range(start // spe, self.config.training.epochs):
                    self._train_epoch(epoch, batches, bar)
                    self._end_epoch(epoch + 1, bar)
                    if self.progress.finished:
                        break
        return self.progress

    @contextlib.contextmanager
    def _checkpoints_closed(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            # Closing waits for every process: one that failed alone would never end.
            if jax.process_count() == 1:
                self.checkpoints.close()
            raise
        self.checkpoints.close()

    def _progress_bar(self, start: int) -> tqdm:
        return tqdm(
            total=self.total_steps,
            initial=start,
            unit="step",
            dynamic_ncols=True,
            mininterval=1.0,
            disable=jax.process_index() != 0,
        )

    def _train_epoch(self, epoch: int, batches: Iterator[dict[str, Any]], bar: tqdm) -> None:
        """Steps to the end of epoch `epoch` (from 0). Metrics are read one step late."""
        spe, sharding = self.stream.steps_per_epoch, batch_sharding(self.mesh)
        every = self.config.training.checkpoint_every_steps
        previous = None
        for step in range(int(self.state.step), (epoch + 1) * spe):
            batch = put_batch(next(batches), sharding)
            self.state, values = self.step(self.state, batch)
            if previous is not None:
                self._show(bar, epoch, step, previous)
            previous = values
            if every and (step + 1) % every == 0 and (step + 1) % spe:
                self._check_finite(step + 1, values)
                self._save_latest()
        if previous is not None:
            self._show(bar, epoch, (epoch + 1) * spe, previous)
            self._check_finite((epoch + 1) * spe, previous)

    def _check_finite(self, step: int, values: Float[Array, "3"]) -> None:
        """Raises UserError where `values`, of step `step` (from 1), or the parameters blew up.

        Finite losses can leave parameters that are not: both are looked at before saving.
        """
        if not np.isfinite(values[0]) or not np.isfinite(self._norm(self.state.params)):
            raise _diverged(step, self.workdir)

    def _show(self, bar: tqdm, epoch: int, step: int, values: Float[Array, "3"]) -> None:
        # Reading the value of the step before waits for that one only.
        loss = float(values[0])
        if not math.isfinite(loss):
            raise _diverged(step, self.workdir)
        bar.update(step - bar.n)
        rate = bar.format_dict["rate"]
        clips = f"{rate * self.config.training.batch_size:.0f}" if rate else "?"
        lr = float(self.schedule(step - 1))
        bar.set_postfix_str(
            f"epoch {epoch + 1}, loss {loss:.3f}, lr {lr:.1e}, {clips} clips/s", refresh=False
        )

    def _end_epoch(self, epoch: int, bar: tqdm) -> None:
        """Validates where it is due, writes the epoch's line, saves, and decides on stopping."""
        training = self.config.training
        last = epoch == training.epochs
        scores: dict[str, float] = {}
        if self.validate is not None and (last or epoch % training.validate_every_epochs == 0):
            scores = self.validate(self.state.eval_params)
            best = self.progress.best_score
            if best is None or scores["score"] >= best:
                self._keep_best(epoch, scores["score"])
            stale = epoch - self.progress.best_epoch
            last = last or stale >= training.patience_epochs
        elif self.validate is None and last:
            self._keep_best(epoch, None)
        self.progress.finished = last
        self.progress.seconds = time.monotonic() - self._started
        line = self._metrics_line(epoch, scores)
        if scores and jax.process_index() == 0:
            bar.write(
                f"epoch {epoch}: loss {line['loss']:.3f}, validation tight Average-mAP "
                f"{scores['score']:.4f} (best {self.progress.best_score:.4f} in epoch "
                f"{self.progress.best_epoch})"
            )
        if jax.process_index() == 0:
            with open(self.workdir / "metrics.jsonl", "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        self._save_latest()

    def _keep_best(self, epoch: int, score: float | None) -> None:
        self.progress.best_score, self.progress.best_epoch = score, epoch
        self.checkpoints.save_best(int(self.state.step), self.state.eval_params)

    def _save_latest(self) -> None:
        self.progress.seconds = time.monotonic() - self._started
        progress = dataclasses.asdict(self.progress)
        self.checkpoints.save_latest(int(self.state.step), self.state, progress)

    def _metrics_line(self, epoch: int, scores: dict[str, float]) -> dict[str, Any]:
        step = epoch * self.stream.steps_per_epoch
        total, classification, displacement = (
            float(value) / self.stream.steps_per_epoch for value in self.state.loss_sums
        )
        return {
            "epoch": epoch,
            "step": step,
            "loss": total,
            "classification_loss": classification,
            "displacement_loss": displacement,
            "learning_rate": float(self.schedule(step - 1)),
            "validation": scores,
            "seconds": round(self.progress.seconds, 2),
        }

    @property
    def parameters(self) -> int:
        """Size of the model."""
        return parameter_count(self.state.params)


def check_training(config: ConfigDict, devices: int) -> None:
    """Raises UserError where the batch can't be split over so many devices."""
    if config.training.batch_size % devices:
        raise UserError(
            f"config.training.batch_size: {config.training.batch_size} clips cannot be split "
            f"over {devices} devices: choose a multiple of {devices}"
        )


def _diverged(step: int, workdir: Path) -> UserError:
    return UserError(
        f"{workdir}: the loss or the weights were no finite numbers any more in step {step}: train "
        "with a lower optimizer.learning_rate in another --workdir, and check the features for "
        "huge values"
    )


def _truncate_metrics(path: Path, step: int) -> None:
    """Drops the lines of epochs that the checkpoint resumed from doesn't hold."""
    if jax.process_index() == 0 and path.exists():
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        kept = [line for line in lines if _step_of(line) <= step]
        if kept != lines:
            write_atomically(path, "".join(line + "\n" for line in kept))


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return float("inf")  # cut off in the middle of writing, or damaged
