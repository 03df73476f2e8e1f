"""The benchmark of loading, at a small size."""

import json

import input as benchmark
import input_cases
import pytest

pytestmark = pytest.mark.skipif(
    not hasattr(input_cases.os, "sched_setaffinity"), reason="Linux only"
)
SMALL = """
from astra_jax.config.load import load_config


def get_config():
    config = load_config("configs/astra.py:visual")
    with config.ignore_type():
        (source,) = config.data.sources
        config.data.sources = ({**source, "widths": (4, 3)},)
    return config
"""


def test_the_benchmark_prints_and_writes_its_figures(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(input_cases, "MATCHES", 2)
    monkeypatch.setattr(input_cases, "MATCHES_AT_THE_START", 10)
    (tmp_path / "small.py").write_text(SMALL)
    counts = ["--workers", "1", "--starters", "1", "--batches", "2"]
    out = tmp_path / "input.json"
    assert benchmark.main(["--config", str(tmp_path / "small.py"), *counts, "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    lines = capsys.readouterr().out.splitlines()
    for case in ("one core", "1 processes", "start, 1 processes"):
        assert all(figure > 0 for figure in found[case].values())
        assert any(line.startswith(case) for line in lines)
    # 8 clips and their partners of 50 rows and 7 columns in half precision, masks and targets.
    features = 2 * 8 * 50 * 7 * 2
    others = 2 * 8 * 50 + 8 * 4 + 8 * 100 * 18 * 9
    assert found["one core"]["megabytes"] == pytest.approx((features + others) / 1e6)
