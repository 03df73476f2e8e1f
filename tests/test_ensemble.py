"""Several runs predict as one: their predictions of each window are averaged."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers.matches import WIDE
from helpers.tiny import SECONDS, TRAIN, VALID, tiny_config, write_data
from ml_collections import ConfigDict

from astra_jax import runs
from astra_jax.cli.evaluate import split_workdirs
from astra_jax.cli.main import main
from astra_jax.config.classes import CLASSES
from astra_jax.config.saved import to_json
from astra_jax.data import normalization
from astra_jax.data.halves import Half
from astra_jax.data.index import index_halves
from astra_jax.data.sources import DataSpec
from astra_jax.data.targets import window_starts
from astra_jax.devices import make_mesh, replicated
from astra_jax.errors import UserError
from astra_jax.model import ASTRA, Predictions
from astra_jax.runs import members
from astra_jax.runs.evaluate import _tell_lengths
from astra_jax.runs.members import (
    index_members,
    matches_of_all,
    normalize_members,
    open_members,
    read_configs,
)
from astra_jax.runs.prepare import model_of
from astra_jax.spotting import ensemble
from astra_jax.spotting.ensemble import Ensemble, average
from astra_jax.spotting.inference import Predictor, land, read_windows, suppression_of
from astra_jax.spotting.matches import spots_to_predictions
from astra_jax.spotting.suppression import suppress
from astra_jax.training.checkpoints import Checkpoints

pytestmark = pytest.mark.usefixtures("programs_once", "module_on_one_device")

AUDIO = {"pattern": "audio{half}.npy", "frames_per_second": 10, "mels": 16, "floor_db": -80.0}
Change = Callable[[ConfigDict], object]


def full_config(root: Path) -> ConfigDict:
    """Two sources, audio and uncertainty."""
    config = tiny_config(root)
    with config.ignore_type():
        config.data.audio = dict(AUDIO)
        config.model.audio.update(segment_frames=16, channels=(2,) * 6, hidden=4)
    config.model.encoder_layers = 1
    config.inference.batch_size = 16  # a half's windows are one batch
    return config


def visual_config(root: Path) -> ConfigDict:
    """One of the sources, no audio, no uncertainty, and another width."""
    config = tiny_config(root)
    with config.ignore_type():
        config.data.sources = config.data.sources[:1]
    config.model.update(dim=8, encoder_layers=1, uncertainty=False)
    config.loss.focal = False
    config.inference.batch_size = 16
    return config


def write_run(workdir: Path, config: ConfigDict, seed: int = 0) -> Path:
    """The folder of a run with drawn parameters: what training leaves for an evaluation."""
    workdir.mkdir(parents=True)
    (workdir / "config.json").write_text(to_json(config))
    halves = index_halves(DataSpec.from_config(config.data), (TRAIN,))
    normalization.save(workdir / normalization.FILE_NAME, normalization.measure(halves))
    rng = np.random.default_rng(seed)
    shapes = members.abstract_params(model_of(config), replicated(make_mesh()))
    draw = lambda leaf: rng.normal(0, 0.3, leaf.shape).astype(np.float32)  # noqa: E731
    params = jax.tree.map(draw, shapes)
    checkpoints = Checkpoints(workdir)
    checkpoints.save_best(3 + seed, params)
    checkpoints.close()
    return workdir


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_data(tmp_path_factory.mktemp("data"))
    for seed, match in enumerate((TRAIN, VALID)):
        for half in (1, 2):
            power = np.random.default_rng([seed, half]).random((16, 10 * SECONDS), np.float32)
            np.save(root / match / f"audio{half}.npy", power)
    return root


@pytest.fixture(scope="module")
def full(root: Path, programs_once: None, module_on_one_device: None) -> Path:
    return write_run(root / "runs" / "full", full_config(root))


@pytest.fixture(scope="module")
def visual(root: Path, programs_once: None, module_on_one_device: None) -> Path:
    return write_run(root / "runs" / "visual", visual_config(root), seed=1)


def spots_in(out: Path) -> list[dict]:
    path = out / "results" / VALID / "results_spotting.json"
    return json.loads(path.read_text())["predictions"]


def test_a_model_twice_is_the_model_to_the_byte(full, tmp_path, monkeypatch, caplog):
    blocks = runs.evaluate(full, "test", tmp_path / "one")
    read = []
    original = ensemble.read_windows
    monkeypatch.setattr(ensemble, "read_windows", lambda *a: read.append(a) or original(*a))
    with caplog.at_level("INFO", "astra_jax"):
        assert runs.evaluate([full, full], "test", tmp_path / "two") == blocks
    assert "best checkpoints of 2 models (steps 3, 3)" in caplog.text
    for name in ("results.zip", "metrics.json"):
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
    # Two halves of a batch each: what the members share is read once.
    assert len(read) == 2


def loaded(workdir: Path) -> tuple[Predictor, list[Half]]:
    """The model of a run and the halves as it reads them."""
    (member,) = open_members([workdir], read_configs([workdir], ()))
    (halves,) = normalize_members([member], index_members([member], (VALID,)))
    predictor = Predictor(member.config, ASTRA(member.model_config), member.restore()[1])
    return predictor, halves


@pytest.fixture(scope="module")
def loaded_full(full: Path) -> tuple[Predictor, list[Half]]:
    return loaded(full)


@pytest.fixture(scope="module")
def loaded_visual(visual: Path) -> tuple[Predictor, list[Half]]:
    return loaded(visual)


def windows_of(predictor: Predictor, half: Half) -> Predictions:
    """What one model says of the windows of a half."""
    starts = window_starts(SECONDS, 8)
    inputs = read_windows(half, starts + starts[-1:], 20)
    return jax.tree.map(lambda leaf: leaf[: len(starts)], predictor.predict(inputs))


def test_predictions_are_averaged_before_they_land(
    root, full, visual, loaded_full, loaded_visual, tmp_path
):
    """And sigma is that of the one member that has one."""
    runs.evaluate([visual, full], "test", tmp_path / "out")
    expected = []
    for number in (0, 1):
        first, second = (
            windows_of(predictor, halves[number])
            for predictor, halves in (loaded_full, loaded_visual)
        )
        assert second.displacement_log_variance is None
        mean = Predictions(
            (first.probabilities + second.probabilities) / 2,
            (first.displacement_mean + second.displacement_mean) / 2,
            first.displacement_log_variance,
        )
        starts = np.array(window_starts(SECONDS, 8)) * 2
        dense = land(mean, starts.astype(np.int64), 2 * SECONDS, 2.0)
        spots = suppress(dense.scores, suppression_of(full_config(root)))
        found = spots_to_predictions(spots, number + 1, CLASSES, 2.0)
        sigma = dense.sigma_seconds[spots.positions, spots.classes]
        expected += [
            spot | {"sigma_seconds": f"{s:.6g}"} for spot, s in zip(found, sigma, strict=True)
        ]
    assert spots_in(tmp_path / "out") == expected and len(expected) > 50
    written = json.loads((tmp_path / "out" / "provenance.json").read_text())
    assert [(of["workdir"], of["step"]) for of in written["members"]] == [
        (str(visual), 4),
        (str(full), 3),
    ]
    assert "workdir" not in written and written["split"] == "test"


def test_the_mean_is_of_probabilities_displacements_and_variances():
    def member(p: float, mu: float, variance: float | None) -> Predictions:
        log_variance = None if variance is None else np.full((1, 2, 3), np.log(variance))
        return Predictions(np.full((1, 2, 3), p), np.full((1, 2, 3), mu), log_variance)

    out = average([member(0.9, 1.0, 1.0), member(0.3, -4.0, None), member(0.3, 0.0, 4.0)])
    np.testing.assert_allclose(out.probabilities, 0.5)
    np.testing.assert_allclose(out.displacement_mean, -1)
    np.testing.assert_allclose(np.exp(out.displacement_log_variance), 2.5)
    assert average([member(0.9, 1.0, None)] * 2).displacement_log_variance is None
    # exp(1000) overflows.
    far = average([Predictions(np.zeros((1, 1, 1)), np.zeros((1, 1, 1)), np.full((1, 1, 1), 1e3))])
    assert far.displacement_log_variance.tolist() == [[[1e3]]]


@pytest.mark.parametrize("count", [3, 7])
def test_equal_members_give_their_own_values(count):
    rng = np.random.default_rng(0)
    draw = lambda: rng.normal(size=(3, 40, 18)).astype(np.float32)  # noqa: E731
    member = Predictions(np.abs(draw()), draw(), 5 * draw())
    for given, back in zip(
        jax.tree.leaves(member), jax.tree.leaves(average([member] * count)), strict=True
    ):
        assert back.dtype == np.float32 and np.array_equal(given, back)


def shorter(root: Path, folder: Path, fill: bool) -> list[Half]:
    """The match of `visual` ending 10 s earlier, or with its last row again in those seconds."""
    shutil.copytree(root / VALID, folder / VALID)
    for half in (1, 2):
        path = folder / VALID / WIDE.format(half=half)
        rows = np.load(path)[:-10]
        np.save(path, np.concatenate([rows, rows[-1:].repeat(10, 0)]) if fill else rows)
    return index_halves(DataSpec.from_config(visual_config(folder).data), (VALID,), labelled=False)


def test_a_member_whose_rows_end_earlier_goes_on_with_its_last(
    root, full, visual, loaded_full, loaded_visual, tmp_path, caplog
):
    found = []
    for fill in (True, False):
        halves = shorter(root, tmp_path / f"{fill}", fill)
        other = (loaded_visual[0], halves)
        for of in ((loaded_full, other), (other, loaded_full)):
            both = Ensemble(of)
            assert len(both.dense_scores(of[0][1][0]).scores) == 2 * SECONDS
            found.append(both.spots(of[0][1][0]))
    for spots in found[1:]:
        for name in ("classes", "positions", "scores", "sigma_seconds"):
            np.testing.assert_array_equal(getattr(found[0], name), getattr(spots, name))
    assert found[0].positions.max() > 2 * 112
    two = open_members([full, visual], read_configs([full, visual], ()))
    _tell_lengths(two, [loaded_full[1], loaded_visual[1]])
    assert caplog.text == ""
    _tell_lengths(two, [loaded_full[1], halves])
    assert f"{VALID}: half 1 lasts 110.0 s for {visual}, 120.0 s for {full}" in caplog.text


# What is refused


def configs_in(tmp_path: Path, root: Path, change: Change) -> list[Path]:
    """Two folders, the second with another config; nothing but configs is read before checks."""
    first, second = full_config(root), visual_config(root)
    change(second)
    for name, config in (("a", first), ("b", second)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(to_json(config))
    return [tmp_path / "a", tmp_path / "b"]


def other_classes(config: ConfigDict) -> None:
    with config.ignore_type():
        config.data.classes = tuple(reversed(config.data.classes))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (other_classes, ("data.classes", "Penalty", "leave one")),
        (lambda c: c.clip.update(seconds=10.0), ("clip.seconds", "20.0", "10.0", "leave one")),
        (lambda c: c.clip.update(positions_per_second=1.0), ("clip.positions_per_second",)),
        (lambda c: c.inference.update(stride_seconds=4.0), ("--config.inference.stride_seconds=",)),
        (lambda c: c.inference.update(overlap="mean"), ("--config.inference.overlap=VALUE",)),
        (
            lambda c: c.inference.suppression.update(windows_seconds=(9.0,)),
            ("--config.inference.suppression.windows_seconds=VALUE", "[9.0]"),
        ),
        (lambda c: c.data.splits.update(test="train.txt"), ("data.splits.test", TRAIN, "--split")),
        (lambda c: c.data.update(root="/nowhere"), ("/nowhere", "b: ", "--config.data.root")),
        (lambda c: c.inference.update(threshold=2.0), ("b: ", "inference.threshold")),
    ],
)
def test_members_that_do_not_go_together_are_named(root, tmp_path, capsys, change, words):
    workdirs = configs_in(tmp_path, root, change)
    of = ",".join(map(str, workdirs))
    arguments = ["--workdir", of, "--split", "test", "--out", str(tmp_path / "out")]
    assert main(["evaluate", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1
    assert [word for word in (*words, str(workdirs[1])) if word not in err] == [], err
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b"}


def test_what_makes_spots_of_predictions_can_be_set_for_all(root, tmp_path):
    workdirs = configs_in(tmp_path, root, lambda c: c.inference.update(threshold=0.1))
    both = open_members(workdirs, read_configs(workdirs, ["--config.inference.threshold=0.2"]))
    assert [member.config.inference.threshold for member in both] == [0.2, 0.2]
    assert matches_of_all(both, "test") == (VALID,)


def read_with(workdirs: Sequence[Path], *overrides: str) -> list[ConfigDict]:
    return read_configs(workdirs, overrides)


def test_a_key_that_one_member_lacks_is_set_for_the_others(root, tmp_path):
    workdirs = configs_in(tmp_path, root, lambda c: c.data.update(workers=1))
    floor, source = (
        "--config.data.audio.floor_db=-70.0",
        "--config.data.sources[1].rows_per_second=4.0",
    )
    first, second = read_with(workdirs, floor, source, "--config.data.workers=2")
    assert (first.data.audio.floor_db, second.data.audio) == (-70.0, None)
    assert first.data.sources[1]["rows_per_second"] == 4 and len(second.data.sources) == 1
    assert first.data.workers == second.data.workers == 2
    with pytest.raises(UserError, match="config has no key flor_db"):
        read_with(workdirs, "--config.data.audio.flor_db=-70.0")


def test_folders_are_told_apart_by_commas(tmp_path):
    assert split_workdirs("runs/a,runs/b") == [Path("runs/a"), Path("runs/b")]
    own = tmp_path / "b=1,c=2"
    own.mkdir()
    assert split_workdirs(str(own)) == own
    with pytest.raises(UserError, match="a name is empty"):
        split_workdirs("runs/a,,runs/b")
    with pytest.raises(UserError, match="names no folder"):
        runs.evaluate([], "test", tmp_path / "out")
