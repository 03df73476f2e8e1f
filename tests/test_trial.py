"""The batch of the validation that is tried before the first step."""

import dataclasses
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from helpers.faults import COMPONENTS, at_step, tell
from helpers.kills import end_faults
from helpers.linear import Linear
from helpers.runs import LINEAR, refused
from helpers.tiny import VALID, tiny_config, write_data

from astra_jax import runs
from astra_jax.errors import UserError
from astra_jax.runs import validate
from astra_jax.runs.components import Components
from astra_jax.spotting.programs import Programs


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


def no_step(components: Components = LINEAR) -> Components:
    def never(*args: Any) -> Any:
        raise AssertionError("a batch was taken")

    return dataclasses.replace(components, put_batch=never)


def predicting(predict: Callable[..., Any]) -> Components:
    """Runs that predict windows by this, given what `Programs.predict` is."""

    class Other(Programs):
        def predict(self, *args: Any) -> Any:
            return predict(super().predict, *args)

    return dataclasses.replace(LINEAR, make_programs=Other)


def test_a_file_that_a_validation_cannot_read_ends_the_run_before_its_first_step(tmp_path):
    root, workdir = write_data(tmp_path / "data"), tmp_path / "run"
    file = root / VALID / "1_wide.npy"
    rows = np.load(file)
    rows[3, 1] = np.nan
    np.save(file, rows)
    with refused(str(file), "NaN"):
        runs.train(tiny_config(root), workdir, components=no_step())
    # Nothing is the run's yet: with the file mended another config is welcome, too.
    assert [path.name for path in workdir.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("part", ["predict", "average_maps", "suppress"])
def test_whatever_part_of_a_validation_fails_fails_before_the_first_step(
    root, tmp_path, monkeypatch, part
):
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise ZeroDivisionError(part)

    components = no_step()
    if part == "predict":
        components = no_step(predicting(fail))
    elif part == "average_maps":
        monkeypatch.setattr(validate, part, fail)
    else:
        monkeypatch.setattr(f"astra_jax.spotting.inference.{part}", fail)
    with pytest.raises(ZeroDivisionError, match=part):
        runs.train(tiny_config(root), tmp_path, components=components)


def test_what_is_tried_is_one_batch_and_compiled_for_all_validations(root, tmp_path, caplog):
    """One program; a batch of 4 windows, then 4 batches for each half of 15 windows."""
    compiled, applied = [], []

    class Traced(Linear):
        def predict_embedded(self, embedded: Any, present: Any) -> Any:
            compiled.append(jax.tree.map(lambda leaf: leaf.shape, embedded))
            return super().predict_embedded(embedded, present)

    def counted(predict: Callable[..., Any], *args: Any) -> Any:
        applied.append(1)
        return predict(*args)

    config = tiny_config(root)
    config.inference.batch_size = 4
    components = dataclasses.replace(predicting(counted), make_model=Traced)
    taken = []
    before = at_step(1, lambda: taken.append(len(applied)))
    with caplog.at_level("INFO", "astra_jax"):
        runs.train(
            config,
            tmp_path,
            components=dataclasses.replace(components, put_batch=before.put_batch),
        )
    assert taken == [1] and len(compiled) == 1
    assert len(applied) - 1 == 3 * 2 * 4
    assert "; compiling, and trying a batch of the validation" in caplog.text


@pytest.mark.parametrize("size", [1, 2, 1000])
def test_a_batch_of_any_size_can_be_tried(root, tmp_path, size):
    class Tried(Exception):
        pass

    def tried(*args: Any) -> Any:
        raise Tried

    applied = []

    def counted(predict: Callable[..., Any], *args: Any) -> Any:
        applied.append(args)
        return predict(*args)

    config = tiny_config(root)
    config.inference.batch_size = size
    components = dataclasses.replace(predicting(counted), put_batch=tried)
    with pytest.raises(Tried):
        runs.train(config, tmp_path, components=components)
    ((_, _, places, _),) = applied
    assert len(places[0]) == min(size, 8)  # on a CPU


def test_a_run_is_the_same_with_the_trial_and_without(root, tmp_path, monkeypatch):
    runs.train(tiny_config(root), tmp_path / "with", components=LINEAR)
    monkeypatch.setattr(validate._Validate, "try_out", lambda *args: None)
    runs.train(tiny_config(root), tmp_path / "without", components=LINEAR)
    assert end_faults(tmp_path / "with", tmp_path / "without") == []


def test_without_a_validation_split_nothing_is_tried(root, tmp_path, caplog):
    config = tiny_config(root)
    config.data.splits.valid = ""

    def never(*args: Any) -> Any:
        raise AssertionError

    with caplog.at_level("INFO", "astra_jax"):
        runs.train(config, tmp_path, components=predicting(never))
    assert "(cpu); compiling" in caplog.text


def test_a_signal_meanwhile_ends_the_process_at_once(root, tmp_path, monkeypatch):
    ended = []
    monkeypatch.setattr("astra_jax.training.interruption.os._exit", ended.append)

    def told(*args: Any) -> Any:
        tell(signal.SIGTERM)
        raise UserError("the process would be gone")

    with refused("would be gone"):
        runs.train(tiny_config(root), tmp_path / "run", components=predicting(told))
    assert ended == [143]


def test_a_run_that_goes_on_tries_it_again(root, tmp_path):
    def stop() -> None:
        raise UserError("stopped")

    with refused("stopped"):
        runs.train(tiny_config(root), tmp_path, components=at_step(5, stop))
    tried = []

    def told(*args: Any) -> Any:
        tried.append(1)
        raise UserError("at the trial")

    components = dataclasses.replace(predicting(told), make_model=COMPONENTS.make_model)
    with refused("at the trial"):
        runs.train(tiny_config(root), tmp_path, components=no_step(components))
    assert tried == [1]
