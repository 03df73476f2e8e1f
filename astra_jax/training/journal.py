"""What a run tells of itself: a bar on the terminal, `metrics.jsonl`, the trackers."""

import contextlib
import json
import logging
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
from tqdm import tqdm

from astra_jax.devices import is_first_process
from astra_jax.files import append_line, name_in_errors, write_atomically
from astra_jax.training.pace import Pace
from astra_jax.training.state import Progress, StepValues, TrainState
from astra_jax.training.trackers import Trackers

_NOTABLE_WAIT = 0.1
"""The share of an epoch from which on waiting for batches is told."""
_NOTABLE_SECONDS = 1.0

_log = logging.getLogger(__name__)


class Journal:
    """One run's; of several processes the first one tells, the others are silent."""

    def __init__(
        self,
        metrics_path: Path,
        steps_per_epoch: int,
        total_steps: int,
        batch_size: int,
        schedule: Callable[[int], float],
        open_trackers: Callable[[int], Trackers],
        tell: Callable[[str], None] = lambda line: None,
        every_steps: int = 0,
    ) -> None:
        """`schedule`: the learning rate of each step. `open_trackers`: at the step given.

        `tell` gets each line that is written above the bar. `every_steps`: how often a step has
        a line of its own; 0: never.
        """
        self._path, self._steps_per_epoch = metrics_path, steps_per_epoch
        self._total_steps, self._batch_size = total_steps, batch_size
        self._schedule, self._open_trackers = schedule, open_trackers
        self._tell, self._speaks = tell, is_first_process()
        self._every_steps, self._advised = every_steps, False
        self._at_line = self._at_epoch = Pace()
        self._since_line = 0

    def cut(self, step: int) -> None:
        """Drops the lines of what the checkpoint of `step` does not hold, and damaged ones.

        A warning says how many epochs before it have no line.
        """
        path = self._path
        if self._speaks and path.exists():
            with name_in_errors(path), open(path, "a"):
                pass  # what can't be added to would stop the run after an epoch
            text = path.read_text(encoding="utf-8", errors="replace")
            lines = [line for line in text.splitlines() if _step_of(line) <= step]
            epochs = sum(_is_of_an_epoch(line) for line in lines)
            kept = "".join(f"{line}\n" for line in lines)
            if kept != text:
                write_atomically(path, kept)
            # The epoch that ends at `step` may be still to be told of.
            if (lost := (step - 1) // self._steps_per_epoch - epochs) > 0:
                _log.warning(
                    "%s: lacks the lines of %d epoch(s) before step %d; the run goes on without",
                    path,
                    lost,
                    step,
                )

    @contextlib.contextmanager
    def open(self, step: int) -> Iterator[None]:
        """Shows the bar and reports to the trackers until it is left, from `step` on."""
        with (
            contextlib.closing(self._open_trackers(step)) as self._trackers,
            tqdm(
                total=self._total_steps,
                initial=step,
                unit="step",
                dynamic_ncols=True,
                mininterval=1.0,
                disable=not self._speaks,
            ) as self._bar,
        ):
            yield

    def say(self, line: str) -> None:
        """A line above the bar, and in the run's log."""
        if self._speaks:
            self._bar.write(line)
            self._tell(line)

    def step(self, step: int, values: StepValues, pace: Pace) -> None:
        """Tells of step `step` (from 1), whose values are on the host; `pace`: until now."""
        of_epoch, in_a_row, in_all = (int(count) for count in values.skipped)
        if in_a_row:
            self.say(f"step {step}: skipped, its loss or its gradients are no finite numbers")
        self._bar.update(step - self._bar.n)
        rate = self._bar.format_dict["rate"]
        clips = f"{rate * self._batch_size:.0f}" if rate else "?"
        skipped = f", {of_epoch} skipped" if of_epoch else ""
        self._bar.set_postfix_str(
            f"epoch {(step - 1) // self._steps_per_epoch + 1}, loss {float(values.losses[0]):.3f}"
            f"{skipped}, lr {self._rate(step, in_all):.1e}, {clips} clips/s",
            refresh=False,
        )
        self._since_line += 1
        if self._every_steps and step % self._every_steps == 0:
            self._tell_step(step, values, self._rate(step, in_all), pace.since(self._at_line))
            self._at_line, self._since_line = pace, 0

    def _tell_step(self, step: int, values: StepValues, rate: float, pace: Pace) -> None:
        """The line of a step; `pace`: since the one before. What is not finite is null there."""
        clips = self._since_line * self._batch_size
        line = {
            "step": step,
            "loss": _finite(values.losses[0]),
            "gradient_norm": _finite(values.gradient_norm),
            "learning_rate": rate,
            "clips_per_second": round(clips / pace.seconds, 1) if pace.seconds else None,
            "seconds_waited": round(pace.waited, 3),
        }
        if self._speaks:
            append_line(self._path, json.dumps(line))
        # By other names than those of the epochs, which are means.
        self._trackers.log(step, {"steps": {k: v for k, v in line.items() if k != "step"}})

    def epoch(
        self,
        epoch: int,
        state: TrainState,
        scores: dict[str, float],
        progress: Progress,
        pace: Pace,
    ) -> None:
        """Tells of epoch `epoch` (from 1), which `state` is the end of; `pace`: until now."""
        sums, counts = jax.device_get((state.loss_sums, state.skipped))
        skipped, _, in_all = (int(count) for count in counts)
        taken, step = self._steps_per_epoch - skipped, epoch * self._steps_per_epoch
        total, classification, displacement = (float(value) / taken for value in sums)
        of_epoch, self._at_epoch = pace.since(self._at_epoch), pace
        line: dict[str, Any] = {
            "epoch": epoch,
            "step": step,
            "loss": total,
            "classification_loss": classification,
            "displacement_loss": displacement,
            "skipped_steps": skipped,
            "learning_rate": self._rate(step, in_all),
            "validation": scores,
            "seconds": round(progress.seconds, 2),
            "seconds_waited": round(of_epoch.waited, 3),
        }
        if scores:
            self.say(
                f"epoch {epoch}: loss {total:.3f}, validation tight Average-mAP "
                f"{100 * scores['score']:.2f} % (best {100 * (progress.best_score or 0):.2f} % in "
                f"epoch {progress.best_epoch})"
            )
        self._tell_wait(epoch, of_epoch)
        if self._speaks:
            append_line(self._path, json.dumps(line))
        self._trackers.log(step, line)

    def _tell_wait(self, epoch: int, pace: Pace) -> None:
        """Says where much of an epoch was waiting for batches, and the first time what helps."""
        if pace.waited < max(_NOTABLE_SECONDS, _NOTABLE_WAIT * pace.seconds):
            return
        mend = ": raise data.workers, set data.cache=memory, or read from a faster disk"
        self.say(
            f"epoch {epoch}: {pace.waited:.1f} s of {pace.seconds:.1f} s were waiting for batches"
            + ("" if self._advised else mend)
        )
        self._advised = True

    def _rate(self, step: int, skipped: int) -> float:
        # The optimiser's count stands still where a step is skipped.
        return self._schedule(step - 1 - skipped)


def _finite(value: Any) -> float | None:
    return float(value) if math.isfinite(value) else None


def _is_of_an_epoch(line: str) -> bool:
    """Of a whole line: those of steps have no "epoch"."""
    return "epoch" in json.loads(line)


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return float("inf")  # cut off in the middle of writing, or damaged
