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
