"""The lines that a run writes of its epochs."""

import pytest

from astra_jax.training.journal import Journal
from astra_jax.training.trackers import Trackers


def untold(step: int) -> Trackers:
    """No tracker is asked for before the run goes on."""
    raise AssertionError(step)


@pytest.mark.parametrize(
    "damage", [b"\xff\xfe\n", b"", b'{"step": "one"}\n', b"[" * 100_000 + b"\n", b'{"step": NaN}\n']
)
def test_damaged_lines_of_metrics_are_left_out(tmp_path, damage):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 3}\n' + damage + b'{"step": 6}\n')
    Journal(path, 3, 9, 8, schedule=lambda step: 0.1, open_trackers=untold).cut(6)
    assert path.read_text() == '{"step": 3}\n{"step": 6}\n'


@pytest.mark.parametrize("content", ["", '{"step": 3\n{"step": 6}\n'])
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
    path.write_text('{"step": 3}\n')
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
