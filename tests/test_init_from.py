"""A run that starts from another one's parameters: what it takes, and what is refused."""

import contextlib
import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from helpers.components import SHARED, on_one_device, one_device
from helpers.kills import arrays_of
from helpers.matches import FAST, WIDE
from helpers.tiny import tiny_config, write_data
from ml_collections import ConfigDict

from astra_jax import runs
from astra_jax.cli.main import main
from astra_jax.config.saved import to_json
from astra_jax.devices import host_copy, replicated
from astra_jax.errors import UserError
from astra_jax.model import ASTRA, abstract_params
from astra_jax.runs.folder import RunFolder
from astra_jax.runs.prepare import Prepared, prepare
from astra_jax.runs.settings import Settings, resolve
from astra_jax.training.checkpoints import Checkpoints
from astra_jax.training.loop import Trainer

COMPONENTS = on_one_device(SHARED)
HERE = Path(__file__).parent


def small_config(root: Path) -> ConfigDict:
    """A layer of the encoder less: compiling takes most of the time here."""
    config = tiny_config(root)
    config.model.encoder_layers = 1
    return config


CLASSES = ("Corner", "Goal", "Own goal")  # the last one is new


def settings_of(config: ConfigDict, folder: RunFolder) -> Settings:
    return Settings.from_config(resolve(config, folder))


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's config and best checkpoint, as an import writes them too, beside its data."""
    folder = tmp_path_factory.mktemp("first")
    run, config = RunFolder(folder / "run"), small_config(write_data(folder / "data"))
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: rng.normal(size=leaf.shape).astype(leaf.dtype) / 4,
        abstract_params(ASTRA(settings_of(config, run).model), replicated(one_device())),
    )
    save_best(run, params)
    run.config_path.write_text(to_json(config), encoding="utf-8")
    return folder


def save_best(run: RunFolder, params: dict) -> None:
    checkpoints = Checkpoints(run.latest_checkpoints, run.best_checkpoints)
    with contextlib.closing(checkpoints):
        checkpoints.save_best(6, params)


def tuned(first: Path) -> ConfigDict:
    """Own classes; the second source alone is as it was, and frozen; an average."""
    config = small_config(first / "data")
    with config.ignore_type():
        config.data.update(
            sources=(
                {"pattern": FAST, "rows_per_second": 2.0, "widths": (3,)},
                {"pattern": WIDE, "rows_per_second": 1.0, "widths": (6,)},
            ),
            classes=CLASSES,
            unknown_labels="skip",
        )
        config.inference.suppression.windows_seconds = (20.0,)
        config.update(init_from=str(first / "run"), freeze=("source_0/*",))
    config.training.update(epochs=2, average_decay=0.5)
    return config


def params_of(workdir: Path) -> dict[str, np.ndarray]:
    (folder,) = (workdir / "checkpoints" / "best").iterdir()
    return {
        name[2:-2].replace("']['", "/"): value
        for name, value in arrays_of(folder / "params").items()
    }


def test_a_run_starts_from_another_one_and_goes_on_without_it(first, tmp_path, caplog):
    shutil.copytree(first, tmp_path / "a")
    source, workdir, starts = tmp_path / "a" / "run", tmp_path / "b", []

    def note(trainer: Trainer) -> None:
        if int(trainer.state.step) == 0:
            starts.append(host_copy(trainer.state.params))

    class Noting(Trainer):
        def run(self) -> Any:
            note(self)
            return super().run()

    class Ending(Trainer):
        def run(self) -> Any:
            note(self)
            raise UserError("ended before the first checkpoint")

    components = dataclasses.replace(COMPONENTS, make_trainer=Noting)
    with caplog.at_level("INFO", "astra_jax"):
        ending = dataclasses.replace(COMPONENTS, make_trainer=Ending)
        with pytest.raises(UserError, match="before the first checkpoint"):
            runs.train(tuned(tmp_path / "a"), workdir, components=ending)
    assert f"init_from {source}: " in caplog.text and "(step 6)" in caplog.text
    assert (
        "fresh: source_1/embedding_code, source_1/projection_0, the outputs of Own goal; left over "
        f"in {source}: source_0/embedding_code, source_0/projection_0, source_0/projection_1, the "
        "outputs of Penalty, "
    ) in caplog.text
    # But for one projection (3 to 3 to 16), its code and those of 40 rows.
    size = sum(leaf.size for leaf in jax.tree.leaves(starts[0]))
    trained = size - (3 * 3 + 3 + 3 * 16 + 16 + 16 + 40 * 16)
    assert f"{size:,} parameters, {trained:,} of them trained, 1 match(es)" in caplog.text
    runs.train(tuned(tmp_path / "a"), workdir, components=components)
    ours, again = (flatten_dict(params, sep="/") for params in starts)
    for name in ours:
        np.testing.assert_array_equal(ours[name], again[name], err_msg=name)

    theirs = params_of(source)
    for name in theirs:
        if name.startswith(("encoder/", "decoder/", "classification_head/hidden/")):
            np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
    np.testing.assert_array_equal(ours["source_1/time_code"], theirs["source_0/time_code"])
    kernel = "classification_head/output/dense/kernel"
    of = tiny_config(first).data.classes.index("Goal") + 1
    np.testing.assert_array_equal(ours[kernel][:, 2], theirs[kernel][:, of])

    best = params_of(workdir)
    frozen = [name for name in best if name.startswith("source_0/")]
    assert len(frozen) == 6
    for name in frozen:
        stored = theirs[name.replace("source_0", "source_1")]
        np.testing.assert_array_equal(best[name], stored, err_msg=name)
    assert (best[kernel] != ours[kernel]).all()
    blocks = runs.evaluate(workdir, "test", tmp_path / "out", components=components)
    assert blocks["loose"]["a_mAP"] >= 0

    # As if it had been stopped after the first epoch, and the other run deleted since.
    ended = params_of(workdir)
    shutil.rmtree(source)
    shutil.rmtree(workdir / "checkpoints" / "latest" / "6")
    moved = tuned(tmp_path / "a")
    moved.init_from = "elsewhere"
    with caplog.at_level("INFO", "astra_jax"):
        runs.train(moved, workdir, components=components)
    assert f"begun from {source}: init_from elsewhere is not read" in caplog.text
    assert json.loads((workdir / "config.json").read_text())["init_from"] == str(source)
    for name, value in params_of(workdir).items():
        np.testing.assert_array_equal(value, ended[name], err_msg=name)
    moved.init_from = None
    with pytest.raises(UserError, match="init_from differ"):
        runs.train(moved, workdir, components=components)
    assert len(starts) == 2


def files(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("gone", r"config.json: no such file: is .* the --workdir of a training run\?"),
        ("not trained", "checkpoints/best: no checkpoint yet: train first"),
        ("damaged", "best/6: the checkpoint is damaged"),
        ("metadata", "best/6: the checkpoint is damaged"),
        ("no config", "config.json: not a run's config"),
        ("own", "is this run's own folder: name another run's"),
        ("other sizes", "no parameter of it fits this config's model"),
    ],
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_run_that_cannot_be_started_from_is_one_line(
    first, tmp_path, fault, words, orbax_may_complain
):
    source, workdir = tmp_path / "a", tmp_path / "b"
    if fault != "gone":
        shutil.copytree(first / "run", source)
    config = tuned(first)
    config.update(init_from=str(source), freeze=())
    best = source / "checkpoints" / "best"
    if fault == "not trained":
        shutil.rmtree(source / "checkpoints")
    elif fault == "damaged":
        for file in (best / "6" / "params" / "d").iterdir():
            file.write_bytes(file.read_bytes()[:10])
    elif fault == "metadata":
        (best / "6" / "params" / "_METADATA").write_text("{")
    elif fault == "no config":
        (source / "config.json").write_text('{"data": {"sources": [3]}}')
    elif fault == "own":
        (source / "config.json").write_text(to_json(config))
        workdir = tmp_path / "b" / ".." / "a"
        workdir.parent.parent.mkdir()
    elif fault == "other sizes":
        shutil.rmtree(best)
        save_best(RunFolder(source), {"other": np.zeros(3)})
    before = files(tmp_path)
    with pytest.raises(UserError, match=f"^config.init_from: .*{words}") as error:
        runs.train(config, workdir, components=COMPONENTS)
    assert "\n" not in str(error.value) and files(tmp_path) == before


def test_a_pattern_that_matches_nothing_is_said_before_anything_is_written(first, tmp_path, capsys):
    arguments = [
        "--config",
        str(HERE / "helpers" / "tiny.py"),
        f"--config.data.root={first / 'data'}",
    ]
    command = ["train", *arguments, "--workdir", str(tmp_path / "b"), "--config.freeze=audio/*"]
    assert main(command) == 2
    assert "error: config.freeze: 'audio/*' matches no parameter" in capsys.readouterr().err
    assert files(tmp_path) == set()


def prepared(config: ConfigDict, folder: Path) -> Prepared:
    """What a training and a dry run begin with."""
    settings = settings_of(config, RunFolder(folder))
    return prepare(settings, RunFolder(folder), ASTRA(settings.model))


def test_a_dry_run_starts_from_it_too(first, tmp_path):
    config = tuned(first)
    warm_start = prepared(config, tmp_path / "b").warm_start
    model = ASTRA(settings_of(config, RunFolder(tmp_path)).model)
    fresh = jax.tree.map(
        lambda leaf: np.zeros(leaf.shape, leaf.dtype),
        abstract_params(model, replicated(one_device())),
    )
    assert warm_start is not None
    started = warm_start(fresh)
    assert np.any(started["encoder"]["layer_0"]["feed_forward"]["hidden"]["dense"]["kernel"])


def test_what_starts_fresh_and_is_frozen_is_a_warning(first, tmp_path, caplog):
    def warnings() -> list[str]:
        told = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
        return [text for text in told if text.startswith("config.freeze")]

    prepared(tuned(first), tmp_path / "b")
    assert warnings() == []
    config = tuned(first)
    config.freeze = ("source_*", "decoder/queries")  # source_1 has another width
    prepared(config, tmp_path / "b")
    (text,) = warnings()
    assert "source_1/" in text and "queries" not in text and "source_0" not in text
