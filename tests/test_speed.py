"""The benchmark against PyTorch: its figures and its file; its processes at a small size."""

import contextlib
import dataclasses
import gzip
import json
from pathlib import Path

import jax
import pytest
import speed
import speed_inference
import speed_programs
from made_up_matches import settings_of
from speed_cases import Case, cases_of, usual_cases
from speed_processes import Failed, why_it_ended, working
from speed_steps import Request
from speed_tables import tables
from speed_trace import kernels_of
from twin.sizes import Sizes

from astra_jax.files import write_atomically

PRODUCT = {"product_seconds": [1.0] * 3, "product_size": 2048}
TRAIN = {
    "kind": "train",
    "ours": PRODUCT | {"seconds": [4.0, 2.0, 1.0], "peak_bytes": 3e9, "flops": 80e9},
    "torch": {"seconds": [3.0, 5.0, 4.0], "peak_bytes": 5e9}
    | PRODUCT
    | {"product_seconds": [0.5] * 3},
    "torch compiled": {"error": "no compiler"},
}
SMALL = """
from astra_jax.config.load import load_config


def get_config(variant="visual"):
    config = load_config("configs/astra.py:visual")
    with config.ignore_type():
        (source,) = config.data.sources
        config.data.sources = ({**source, "widths": (4, 3)},)
    config.clip.seconds = 10.0
    config.model.update(dim=8, heads=2, feed_forward=8, encoder_layers=2, decoder_layers=1)
    return config
"""


# Tables


def test_steps_are_compared_by_their_medians_and_with_the_faster_product():
    """2 x 2048^3 FLOPs in half a second: 34 GFLOP/s, of which 80 GFLOP in 2 s are 116 %."""
    times, resources, errors = tables({"train full": TRAIN}).split("\n\n")
    assert times.splitlines()[-1] == (
        "| train full | 2.00 s (1.00-4.00) | 4.00 s (3.00-5.00) | - | 2.00 | - |"
    )
    assert resources.splitlines()[-1] == (
        "| train full | 3.0 GB | 5.0 GB | - | - | - | - | 80 | 34 | 116 % |"
    )
    assert errors == "train full: no compiler"


def test_the_table_of_a_gpu_has_milliseconds_and_kernels():
    traced = {"kernels": 1263.0, "kernel_ms": 5.94, "seconds": [0.0084], "peak_bytes": 2.4e9}
    one = TRAIN | {"ours": TRAIN["ours"] | traced}
    times, resources, _ = tables({"train visual": one}).split("\n\n")
    assert "| 8.40 ms (8.40-8.40) |" in times and "| 1,263 in 5.9 ms |" in resources


def test_whole_programs_have_tables_of_their_own():
    results = {
        "start visual": {
            "kind": "start",
            "ours": {"cold": 30.04, "warm": 10.0},
            "torch": {"cold": 7.0, "warm": 7.0},
            "torch compiled": {"error": "it died"},
        },
        "loop visual": {
            "kind": "loop",
            "clips_per_second": [90.0, 95.0, 80.0],
            "seconds_waited": [0.5, 0.0, 0.25],
            "bare_clips_per_second": 100.0,
        },
        "inference visual": {
            "kind": "inference",
            "minutes": 90,
            "ours": {"seconds": [2.0], "windows": 676},
            "torch": {"seconds": [5.0], "windows": 676},
        },
        "loop full": {"kind": "loop", "error": "train.py ended"},
    }
    starts, loops, inferences, errors = tables(results).split("\n\n")
    assert starts.splitlines()[-1] == ("| start visual | 30.0 s | 10.0 s | 7.0 s | 7.0 s | - | - |")
    assert loops.splitlines()[-1] == "| loop visual | 100.0 | 90.0 | 90 % | 0.8 s |"
    assert inferences.splitlines()[-1] == (
        "| inference visual | 90 | 676 | 2.00 s (2.00-2.00) | 5.00 s (5.00-5.00) | 2.50 |"
    )
    assert errors.splitlines() == ["start visual: it died", "loop full: train.py ended"]


def test_kernels_are_counted_on_the_streams_of_gpus(tmp_path):
    """Two steps of three kernels, of 2 ms in all; a copy, the host and lines that sum up aside."""
    named = [
        name_of("process", "/device:GPU:0", pid=1),
        name_of("process", "/host:CPU", pid=2),
        name_of("thread", "Stream #7(Compute)", pid=1, tid=7),
        name_of("thread", "XLA Ops", pid=1, tid=8),
        name_of("thread", "Stream #7", pid=2, tid=7),
    ]

    def event(pid: int, tid: int, name: str) -> dict:
        return {"ph": "X", "pid": pid, "tid": tid, "name": name, "dur": 2000 / 3, "ts": 0}

    kernels = [event(1, 7, f"fusion_{k}") for k in range(6)]
    others = [event(1, 7, "MemcpyH2D"), event(1, 8, "fusion_1"), event(2, 7, "fusion_1")]
    file = tmp_path / "host.trace.json.gz"
    file.write_bytes(gzip.compress(json.dumps({"traceEvents": named + kernels + others}).encode()))
    assert kernels_of(file, steps=2) == pytest.approx({"kernels": 3, "kernel_ms": 2.0})


def name_of(kind: str, name: str, **where: int) -> dict:
    return {"ph": "M", "name": f"{kind}_name", "args": {"name": name}, **where}


# The file of results


def test_the_benchmark_goes_on_after_the_last_case(tmp_path, monkeypatch):
    out, measured = tmp_path / "speed.json", []
    monkeypatch.setattr(speed, "measure", lambda *request: measured.append(request) or TRAIN)
    known = cases_of("cpu")
    done, left = known["train full float32 4"], known["train visual float32 8"]
    write_atomically(out, json.dumps({done.name: TRAIN}))
    speed.run([done, left], "cpu", 3, out)
    assert measured == [(left, "cpu", 3)]
    assert json.loads(out.read_text()).keys() == {done.name, left.name}


def test_a_case_that_fails_is_told_and_the_next_one_is_measured(tmp_path, monkeypatch):
    def measure(case: Case, *_: object) -> dict:
        if case.kind == "start":
            raise Failed("train.py ended with code 2")
        return TRAIN

    monkeypatch.setattr(speed, "measure", measure)
    known = cases_of("cpu")
    cases = [known["start visual"], known["forward full float32 8"]]
    results = speed.run(cases, "cpu", 3, tmp_path / "speed.json")
    assert "start visual: train.py ended with code 2" in tables(results)
    assert results["forward full float32 8"] == TRAIN


def test_a_gpu_is_measured_in_both_precisions_and_sizes_and_with_all_programs():
    names = usual_cases("gpu")
    for kind in ("train", "forward"):
        for variant in ("visual", "full"):
            for rest in ("bfloat16 8", "bfloat16 64", "float32 8", "float32 64"):
                assert f"{kind} {variant} {rest}" in names
    for kind in ("start", "loop", "inference"):
        assert {f"{kind} visual", f"{kind} full"} <= {*names}
    assert {*usual_cases("cpu")} < {*cases_of("cpu")}


def test_the_tables_alone_measure_nothing(tmp_path, capsys):
    out = tmp_path / "speed.json"
    write_atomically(out, json.dumps({"train full": TRAIN}))
    speed.main(["--out", str(out), "--table"])
    assert capsys.readouterr().out.strip() == tables({"train full": TRAIN})


# Processes


def test_a_process_that_dies_is_one_line(capfd):
    request = Request("abacus", "train", "cpu", "float32", 2)
    line = "^abacus, train: ended with code 1: KeyError: 'abacus'$"
    with pytest.raises(Failed, match=line), working(request):
        pass
    assert "Traceback" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("code", "said", "line"),
    [
        (-9, "begins\n", "ended with code -9: killed, out of memory?"),
        (2, "", "ended with code 2: nothing said"),
        (2, "a\nno such folder: mend it\n\n", "ended with code 2: no such folder: mend it"),
        (
            1,
            "Traceback\n  raise\nx.JaxRuntimeError: INTERNAL: a GPU's\n\nhint\n",
            "ended with code 1: x.JaxRuntimeError: INTERNAL: a GPU's",
        ),
    ],
)
def test_why_a_process_ended_is_its_last_error(code, said, line, capsys):
    assert why_it_ended(code, said) == line
    assert capsys.readouterr().err == said


class Dying:
    """A worker whose `told` is ready, which dies at its third measurement, or when it is traced."""

    seconds, told = 0.0, {"parameters": 1}

    def __init__(self, request: Request) -> None:
        self._framework, self._taken = request.framework, 0

    def take(self, steps: int) -> dict:
        self._taken += 1
        if self._framework == "torch" and self._taken == 3:
            raise Failed("torch, train: it died")
        return {"seconds": 0.5, "peak_bytes": 1e9}

    def trace(self, steps: int) -> dict:
        raise Failed("ours, train: no trace")


def test_what_was_measured_before_a_process_died_stays_and_the_others_go_on(monkeypatch):
    monkeypatch.setattr(speed, "working", lambda request: contextlib.nullcontext(Dying(request)))
    requests = [Request(name, "train", "gpu", "bfloat16", 8) for name in ("torch", "ours")]
    found = speed.measure_steps(requests, repeats=4)
    assert found["torch"]["seconds"] == [0.5] * 2 and found["ours"]["seconds"] == [0.5] * 4
    assert found["torch"]["error"] == "torch, train: it died"
    assert found["ours"]["error"] == "ours, train: no trace"
    found["ours"]["flops"] = 1e9
    assert "0.50 s" in tables({"train": {"kind": "train", **found}})
    # Nor do the tables need a product, where its process died first.
    found["ours"]["product_seconds"] = found["torch"]["product_seconds"] = []
    assert "0.50 s" in tables({"train": {"kind": "train", **found}})


def test_the_benchmark_itself_takes_no_gpu(tmp_path):
    """It would keep most of the memory of those that it measures."""
    before = jax.config.jax_platforms
    jax.config.update("jax_platforms", None)
    try:
        speed.main(["--device", "gpu", "--out", str(tmp_path / "none.json"), "--table"])
        assert jax.config.jax_platforms == "cpu"
    finally:
        jax.config.update("jax_platforms", before)


@pytest.mark.parametrize("framework", ["ours", "torch"])
def test_a_match_is_predicted_at_a_small_size(tmp_path, monkeypatch, capsys, framework):
    """Four windows of each half of 30 s."""
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    (tmp_path / "small.py").write_text(SMALL)
    config = f"{tmp_path / 'small.py'}:visual"
    speed_inference.main(["--framework", framework, "--config", config, "--minutes", "1"])
    told = json.loads(capsys.readouterr().out)
    assert told["windows"] == 8 and told["seconds"] > 0


def test_a_compiler_that_is_missing_is_told(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    request = Request("torch compiled", "train", "cpu", "float32", 2)
    assert "no-such-compiler" in speed.measure_steps([request], 1)["torch compiled"]["error"]


@pytest.fixture
def small(tmp_path, monkeypatch) -> Path:
    """A config to be measured in seconds, in the place of the full one."""
    config = tmp_path / "small.py"
    config.write_text(SMALL)
    monkeypatch.setattr("speed_cases.CONFIG", config)
    return config


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("mode", ["train", "forward"])
def test_frameworks_take_turns_at_a_small_size(small, mode, dtype):
    found = speed.measure_steps(requests_of(small, mode, dtype, "ours", "torch"), repeats=2)
    for one in found.values():
        assert one["parameters"] == found["ours"]["parameters"]
        assert len(one["seconds"]) == len(one["product_seconds"]) == 2
        assert min(one["seconds"] + one["product_seconds"]) > 0
        assert 10e6 < one["peak_bytes"] < 5e9
    assert found["ours"]["flops"] > 0


def requests_of(config: Path, mode: str, dtype: str, *frameworks: str) -> list[Request]:
    sizes = dataclasses.asdict(Sizes.of(settings_of(str(config)).model))
    return [Request(f, mode, "cpu", dtype, 2, str(config), sizes) for f in frameworks]


@pytest.mark.slow
def test_a_trace_on_a_cpu_has_no_kernels_of_a_gpu(small):
    for request in requests_of(small, "forward", "float32", "ours", "torch"):
        with working(request) as worker:
            assert worker.trace(2) == {"kernels": 0, "kernel_ms": 0}


@pytest.mark.slow
def test_starts_and_loops_are_measured_at_a_small_size(small, monkeypatch):
    monkeypatch.setattr(speed_programs, "MATCHES", 2)
    monkeypatch.setattr(speed_programs, "HALF_SECONDS", 900)
    found = speed.measure(Case("start", "visual"), "cpu", 1)
    assert found["ours"]["cold"] > 1 and found["ours"]["warm"] > 1 and found["torch"]["cold"] > 1
    found = speed.measure(Case("loop", "visual"), "cpu", 2)
    assert len(found["clips_per_second"]) == speed_programs.LOOP_LINES
    assert min(*found["clips_per_second"], found["bare_clips_per_second"]) > 0
    assert "| loop visual |" in tables({"loop visual": found})
