"""The lines that a run writes of its epochs and of some steps."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.runs import lines

from astra_jax.training.journal import Journal
from astra_jax.training.pace import Pace
from astra_jax.training.state import Progress, StepValues, TrainState
from astra_jax.training.trackers import Trackers


def untold(step: int) -> Trackers:
    """No tracker is asked for before the run goes on."""
    raise AssertionError(step)


@pytest.mark.parametrize(
    "damage", [b"\xff\xfe\n", b"", b'{"step": "one"}\n', b"[" * 100_000 + b"\n", b'{"step": NaN}\n']
)
def test_damaged_lines_of_metrics_are_left_out(tmp_path, damage):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"epoch": 1, "step": 3}\n' + damage + b'{"epoch": 2, "step": 6}\n')
    Journal(path, 3, 9, 8, schedule=lambda step: 0.1, open_trackers=untold).cut(6)
    assert path.read_text() == '{"epoch": 1, "step": 3}\n{"epoch": 2, "step": 6}\n'


@pytest.mark.parametrize(
    "content", ["", '{"epoch": 1, "step": 3\n{"step": 5}\n{"epoch": 2, "step": 6}\n']
)
def test_lines_that_are_lost_are_told(tmp_path, caplog, content):
    path = tmp_path / "metrics.jsonl"
    path.write_text(content)
    Journal(path, 3, 9, 8, schedule=lambda step: 0.1, open_trackers=untold).cut(8)
    lost = 1 if content else 2
    assert caplog.messages == [
        f"{path}: lacks the lines of {lost} epoch(s) before step 8; the run goes on without"
    ]


def test_the_epoch_that_is_still_to_be_told_is_not_missed(tmp_path, caplog):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"epoch": 1, "step": 3}\n')
    Journal(path, 3, 9, 8, schedule=lambda step: 0.1, open_trackers=untold).cut(6)
    assert not caplog.messages


def test_metrics_that_cannot_be_added_to_stop_a_run_before_its_first_epoch(tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    path.touch()

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("astra_jax.training.journal.open", refuse, raising=False)
    with pytest.raises(PermissionError, match="metrics.jsonl"):
        Journal(path, 3, 9, 8, schedule=lambda step: 0.1, open_trackers=untold).cut(6)


# Lines of steps


class Remembering:
    """Trackers that keep what they are told."""

    def __init__(self) -> None:
        self.logged: list[tuple[int, dict[str, Any]]] = []

    def log(self, step: int, values: dict[str, Any]) -> None:
        self.logged.append((step, values))

    def close(self) -> None:
        pass


def journal_of(path: Path, trackers: Remembering, said: list[str], every_steps: int) -> Journal:
    """Of a run of three steps an epoch in batches of 8, at a rate of a hundredth of the step."""
    return Journal(
        path, 3, 9, 8, lambda step: step / 100, lambda step: trackers, said.append, every_steps
    )


def values_of(loss: float = 2.0, skipped: tuple[int, int, int] = (0, 0, 0)) -> StepValues:
    return StepValues(
        losses=np.array([loss, 1.5, 0.5]),
        gradient_norm=np.array(3 * loss),
        skipped=np.array(skipped),
    )


def test_every_so_many_steps_one_has_a_line(tmp_path):
    path, trackers = tmp_path / "metrics.jsonl", Remembering()
    journal = journal_of(path, trackers, [], every_steps=2)
    with journal.open(0):
        for step in range(1, 6):
            journal.step(step, values_of(loss=step), Pace(0.5 * step, 0.25 * step))
    # Two steps a second.
    expected = [
        {"step": 2, "loss": 2.0, "gradient_norm": 6.0, "learning_rate": 0.01}
        | {"clips_per_second": 16.0, "seconds_waited": 0.5},
        {"step": 4, "loss": 4.0, "gradient_norm": 12.0, "learning_rate": 0.03}
        | {"clips_per_second": 16.0, "seconds_waited": 0.5},
    ]
    assert lines(path) == expected
    told = [(line.pop("step"), {"steps": line}) for line in expected]
    assert trackers.logged == told


def test_a_skipped_step_has_nulls_in_its_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    journal = journal_of(path, Remembering(), [], every_steps=1)
    with journal.open(0):
        journal.step(1, values_of(loss=math.inf, skipped=(1, 1, 1)), Pace())
    text = path.read_text()
    line = json.loads(text)
    assert "NaN" not in text and "Infinity" not in text
    assert line["loss"] is line["gradient_norm"] is line["clips_per_second"] is None


def test_steps_have_no_lines_where_none_are_asked_for(tmp_path):
    path = tmp_path / "metrics.jsonl"
    journal = journal_of(path, Remembering(), [], every_steps=0)
    with journal.open(0):
        journal.step(1, values_of(), Pace())
    assert not path.exists()


def test_lines_of_steps_after_the_checkpoint_are_dropped_as_those_of_epochs_are(tmp_path, caplog):
    path = tmp_path / "metrics.jsonl"
    rows = ['{"step": 2}', '{"epoch": 1, "step": 3}', '{"step": 4}', '{"step": 6}']
    path.write_text("\n".join([*rows, '{"epoch": 2, "step": 6}']) + "\n")
    journal_of(path, Remembering(), [], every_steps=2).cut(5)
    assert path.read_text().splitlines() == rows[:3] and not caplog.messages


# Waiting


def end_epochs(journal: Journal, *paces: Pace) -> None:
    """Epochs of three steps that end at these readings of the stopwatch."""
    with journal.open(0):
        for epoch, pace in enumerate(paces, start=1):
            told = {"loss_sums": np.array([6.0, 4.5, 1.5]), "skipped": np.zeros(3, int)}
            untold = {field.name: None for field in dataclasses.fields(TrainState)}
            state = TrainState(**untold | told)
            journal.epoch(epoch, state, {}, Progress(epochs=epoch, seconds=2.0), pace)


def test_an_epoch_says_how_long_it_waited_and_once_what_helps(tmp_path):
    path, said = tmp_path / "metrics.jsonl", []
    journal = journal_of(path, Remembering(), said, every_steps=0)
    end_epochs(journal, Pace(100, 9), Pace(150, 15), Pace(160, 19))
    assert [line["seconds_waited"] for line in lines(path)] == [9, 6, 4]
    # Of the first one's 100 s 9 are not notable.
    assert said == [
        "epoch 2: 6.0 s of 50.0 s were waiting for batches: raise data.workers, set "
        "data.cache=memory, or read from a faster disk",
        "epoch 3: 4.0 s of 10.0 s were waiting for batches",
    ]


def test_waiting_of_less_than_a_second_is_not_told(tmp_path):
    said: list[str] = []
    end_epochs(journal_of(tmp_path / "metrics.jsonl", Remembering(), said, 0), Pace(2, 0.9))
    assert said == []
