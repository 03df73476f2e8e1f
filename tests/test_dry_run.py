"""A dry run tells what a training needs and leaves nothing behind."""

import dataclasses
import os
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers.linear import Linear
from helpers.runs import ASTRA, LINEAR
from helpers.tiny import write_data
from ml_collections import ConfigDict

from astra_jax.cli.main import main
from astra_jax.config.load import load_config
from astra_jax.data.simulation.writer import SimulationSpec, write_matches
from astra_jax.errors import UserError
from astra_jax.model import ModelConfig
from astra_jax.runs import dry_run
from astra_jax.runs.components import Components
from astra_jax.runs.dry_run import DryRun, measure, report

HERE = Path(__file__).parent

MEASURED = DryRun(
    parameters=1_234_567,
    memory={
        "parameters": 4_000_000,
        "optimiser": 8_000_000,
        "average of the weights": 0,
        "batch": 999,
        "activations and gradients": 1_500_000_000,
        "other": 0,
    },
    flops_per_step=3e9,
    compile_seconds=12.34,
    seconds_per_step=0.5,
    steps_measured=10,
    steps_per_epoch=1000,
    epochs=50,
    shapes={"features.0": "(8, 50, 8576) float32"},
)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def files(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


@pytest.mark.usefixtures("compile_once")
def test_a_dry_run_measures_steps_and_leaves_nothing(tmp_path, temporary, capsys):
    root = write_data(tmp_path / "data")
    before = files(tmp_path)
    arguments = ["--config", str(HERE / "helpers" / "tiny.py"), f"--config.data.root={root}"]
    assert main(["train", *arguments, "--workdir", str(tmp_path / "run"), "--dry-run"], ASTRA) == 0
    assert files(tmp_path) == before
    out = capsys.readouterr().out
    rows = dict(line.split("  ", 1) for line in out.splitlines() if line[0] != " " and "  " in line)
    assert rows["parameters"].strip() == "9,820"
    # Float32: 9,820 parameters, and three moments of each beside two counters.
    assert "parameters 39.3 kB, optimiser 118 kB" in rows["memory a device"]
    assert "activations and gradients" in rows["memory a device"]
    assert "measured over 10 steps on this machine, 8 device(s) (cpu)" in rows["a step"]
    assert rows["an epoch"].strip().startswith("3 steps, about ")
    assert rows["the run"].strip().startswith("3 epochs, about ")
    assert "  features.1: (8, 40, 3) float32" in out.splitlines()


def test_what_would_stop_the_training_stops_the_dry_run(tmp_path, temporary, capsys):
    arguments = [
        "--config",
        str(HERE / "helpers" / "tiny.py"),
        f"--config.data.root={tmp_path / 'none'}",
    ]
    assert main(["train", *arguments, "--workdir", str(tmp_path / "run"), "--dry-run"]) == 2
    assert "no such folder" in capsys.readouterr().err
    assert files(tmp_path) == {temporary}


# Simulated matches


def small_demo() -> ConfigDict:
    """The demo's config, its matches small."""
    config = load_config(str(HERE.parent / "configs" / "demo.py"))
    config.simulation.update(train_matches=1, valid_matches=1, test_matches=1, half_seconds=120)
    config.training.batch_size = 8
    return config


def looking(look: Callable[[], None]) -> Components:
    """Components that call `look` when the matches are there and nothing is built yet."""

    def make_model(config: ModelConfig) -> Linear:
        look()
        return Linear(config)

    return dataclasses.replace(LINEAR, make_model=make_model)


def test_simulated_matches_are_written_apart_and_removed(tmp_path, temporary):
    found: list[Path] = []
    components = looking(lambda: found.extend(temporary.rglob("simulation.json")))
    measured = measure(small_demo(), tmp_path / "run", components, most_steps=1)
    assert len(set(found)) == 1 and measured.steps_measured == 1
    assert files(tmp_path) == {temporary}


def test_simulated_matches_that_are_there_are_used(tmp_path, temporary):
    config = small_demo()
    written = SimulationSpec.from_config(config.to_dict()["simulation"])
    write_matches(tmp_path / "run" / "matches", written)
    before, found = files(tmp_path), []
    components = looking(lambda: found.extend(temporary.rglob("simulation.json")))
    measured = measure(config, tmp_path / "run", components, most_steps=1)
    assert found == [] and measured.steps_measured == 1
    assert files(tmp_path) == before


def test_a_signal_takes_the_temporary_folder_away(tmp_path, temporary, monkeypatch, capfd):
    """The process would end there and then: here it is kept from it."""
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)

    def tell_to_end() -> None:
        assert list(temporary.rglob("simulation.json"))
        signal.raise_signal(signal.SIGTERM)
        deadline = time.monotonic() + 30
        while not ended and time.monotonic() < deadline:
            time.sleep(0.01)
        assert ended == [128 + signal.SIGTERM] and files(tmp_path) == {temporary}
        raise UserError("ended")

    with pytest.raises(UserError, match="ended"):
        measure(small_demo(), tmp_path / "run", looking(tell_to_end))
    # A dry run is no training: the same command does not go on.
    assert "ended by SIGTERM" in capfd.readouterr().err.splitlines()


# The report


def test_the_report_adds_up():
    lines = report(MEASURED).splitlines()
    assert lines[0].split() == ["parameters", "1,234,567"]
    assert "1.51 GB: parameters 4 MB, optimiser 8 MB, batch 999 B, activations" in lines[1]
    assert "average" not in lines[1]
    assert "3e+09 (6e+09 a second)" in lines[2]
    # 1000 steps of half a second: 8 1/3 minutes; times 50: 6 hours 57 minutes.
    assert "1,000 steps, about 8 min" in lines[5]
    assert "50 epochs, about 6 h 57 min, validation not counted" in lines[6]
    assert lines[-1] == "dry run: nothing was written"


@pytest.mark.parametrize("analysis", [None, [], {}, [{"flops": -1.0}]])
def test_flops_that_xla_does_not_tell_are_unknown(analysis):
    assert dry_run._flops(SimpleNamespace(cost_analysis=lambda: analysis)) is None
    assert dry_run._flops(SimpleNamespace(cost_analysis=lambda: [{"flops": 5}])) == 5


def test_memory_that_xla_does_not_tell_is_unknown():
    known = {key: MEASURED.memory[key] for key in ("parameters", "optimiser")}
    unknown = DryRun(**{**vars(MEASURED), "memory": known, "flops_per_step": None})
    lines = report(unknown).splitlines()
    assert "not known here: parameters 4 MB, optimiser 8 MB" in lines[1]
    assert "not known here" in lines[2]
