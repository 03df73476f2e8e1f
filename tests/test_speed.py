"""The benchmark against PyTorch: its figures and its file; its processes at a small size."""

import json

import pytest
import speed

from astra_jax.files import write_atomically

CASE = {
    "clips": 8,
    "flops": 80e9,
    "ours": {"seconds": [4.0, 2.0, 1.0], "product_seconds": [1.0] * 3, "peak_rss_bytes": 3e9},
    "torch": {"seconds": [3.0, 5.0, 4.0], "product_seconds": [0.5] * 3, "peak_rss_bytes": 5e9},
}
SMALL = """
from astra_jax.config.load import load_config


def get_config():
    config = load_config("configs/astra.py:visual")
    with config.ignore_type():
        (source,) = config.data.sources
        config.data.sources = ({**source, "widths": (4, 3)},)
    config.clip.seconds = 10.0
    config.model.update(dim=8, heads=2, feed_forward=8, encoder_layers=2, decoder_layers=1)
    return config
"""


def test_the_table_gives_medians_and_shares_of_the_faster_product():
    """2 x 2048^3 FLOPs in half a second: 34.4 GFLOP/s, of which 80 GFLOP in 2 s are 116 %."""
    row = speed.table({"train": CASE}).splitlines()[-1]
    assert row == (
        "| train | 8 | 2.00 s (1.00-4.00) | 4.00 s (3.00-5.00) | 2.00 | 80 | 34 | 116 % | 58 % "
        "| 3.0 GB | 5.0 GB |"
    )


def test_the_benchmark_goes_on_after_the_last_case(tmp_path, monkeypatch):
    out, measured = tmp_path / "speed.json", []
    monkeypatch.setattr(speed, "measure", lambda *request: measured.append(request) or CASE)
    write_atomically(out, json.dumps({"train with audio": CASE}))
    speed.run(["train with audio", "train without audio"], 3, out)
    assert measured == [("train", f"{speed.CONFIG}:visual", 8, 3)]
    assert json.loads(out.read_text()).keys() == {"train with audio", "train without audio"}


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["train", "forward"])
def test_both_frameworks_take_turns_at_a_small_size(tmp_path, mode):
    config = tmp_path / "small.py"
    config.write_text(SMALL)
    found = speed.measure(mode, str(config), clips=2, repeats=2)
    assert found["flops"] > 0 and found["parameters"] > 0
    for framework in speed.FRAMEWORKS:
        one = found[framework]
        assert len(one["seconds"]) == len(one["product_seconds"]) == 2
        assert min(one["seconds"] + one["product_seconds"]) > 0
        assert 10e6 < one["peak_rss_bytes"] < 5e9


def test_a_process_that_dies_ends_the_benchmark_in_one_line(capfd):
    request = {"framework": "abacus", "mode": "train"}
    line = "^error: the process of abacus, train ended with code 1$"
    with pytest.raises(SystemExit, match=line), speed.working(request):
        pass
    assert "KeyError: 'abacus'" in capfd.readouterr().err
