"""Several runs predict as one: their predictions of each window are averaged."""

import json
import os
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers.components import SHARED, on_one_device, one_device
from helpers.ensemble import full_config, visual_config
from helpers.matches import WIDE
from helpers.plain import compile_apply, read_windows
from helpers.tiny import SECONDS, TRAIN, VALID, write_data
from ml_collections import ConfigDict

from astra_jax import runs
from astra_jax.config.classes import CLASSES
from astra_jax.config.saved import to_json
from astra_jax.data.halves import Half
from astra_jax.data.index import index_halves
from astra_jax.data.normalization import measure_normalizations, save_normalizations
from astra_jax.data.time import clip_starts
from astra_jax.devices import replicated
from astra_jax.model import ASTRA, Predictions, abstract_params
from astra_jax.runs.folder import RunFolder
from astra_jax.runs.members import index_members, normalize_members, open_members
from astra_jax.runs.settings import Settings, resolve
from astra_jax.spotting.ensemble import average_models
from astra_jax.spotting.inference import Forward, InferenceConfig, Predictor
from astra_jax.spotting.matches import spots_to_predictions
from astra_jax.spotting.suppression import suppress
from astra_jax.spotting.windows import place_scores
from astra_jax.training.checkpoints import Checkpoints

COMPONENTS = on_one_device(SHARED)


def settings_of(config: ConfigDict) -> Settings:
    return Settings.from_config(resolve(config, RunFolder(Path())))


def write_run(workdir: Path, config: ConfigDict, seed: int = 0) -> Path:
    """The folder of a run with drawn parameters: what training leaves for an evaluation."""
    workdir.mkdir(parents=True)
    folder, settings = RunFolder(workdir), settings_of(config)
    folder.config_path.write_text(to_json(config))
    halves = index_halves(settings.data, (TRAIN,))
    save_normalizations(folder.normalization_path, measure_normalizations(halves))
    rng = np.random.default_rng(seed)
    shapes = abstract_params(ASTRA(settings.model), replicated(one_device()))
    draw = lambda leaf: rng.normal(0, 0.3, leaf.shape).astype(np.float32)  # noqa: E731
    params = jax.tree.map(draw, shapes)
    checkpoints = Checkpoints(folder.latest_checkpoints, folder.best_checkpoints)
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
def full(root: Path) -> Path:
    return write_run(root / "runs" / "full", full_config(root))


@pytest.fixture(scope="module")
def visual(root: Path) -> Path:
    return write_run(root / "runs" / "visual", visual_config(root), seed=1)


def spots_in(out: Path) -> list[dict]:
    path = out / "results" / VALID / "results_spotting.json"
    return json.loads(path.read_text())["predictions"]


def test_a_model_twice_is_the_model_to_the_byte(full, tmp_path, monkeypatch, caplog):
    reads, preadv = [], os.preadv
    monkeypatch.setattr(os, "preadv", lambda *args: reads.append(args) or preadv(*args))
    blocks = runs.evaluate(full, "test", tmp_path / "one", components=COMPONENTS)
    by_one = len(reads)
    with caplog.at_level("INFO", "astra_jax"):
        both = runs.evaluate([full, full], "test", tmp_path / "two", components=COMPONENTS)
    assert both == blocks
    assert "best checkpoints of 2 models (steps 3, 3)" in caplog.text
    for name in ("results.zip", "metrics.json"):
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
    # What the members share is read once.
    assert by_one > 0 and len(reads) == 2 * by_one


Loaded = tuple[Forward, list[Half], InferenceConfig]


def loaded(workdir: Path) -> Loaded:
    """The model of a run, the halves as it reads them, and how it makes spots."""
    (member,) = open_members([workdir], (), COMPONENTS)
    (halves,) = normalize_members([member], index_members([member], (VALID,)))
    programs = COMPONENTS.make_programs(member.model, one_device())
    forward = Forward(programs, member.restore()[1])
    return forward, halves, member.settings.inference


@pytest.fixture(scope="module")
def loaded_full(full: Path) -> Loaded:
    return loaded(full)


@pytest.fixture(scope="module")
def loaded_visual(visual: Path) -> Loaded:
    return loaded(visual)


def windows_of(forward: Forward, half: Half) -> Predictions:
    """What one model says of the windows of a half, each read and embedded for itself."""
    inputs = read_windows(half, clip_starts(SECONDS, 8, 20, 2), 20)
    apply = compile_apply(forward.programs.model)
    return jax.device_get(apply(forward.params, inputs))


def assert_same_spots(found: list[dict], expected: list[dict]) -> None:
    """But for rounding: equal scores may change places."""

    def ordered(spots: list[dict]) -> list[dict]:
        return sorted(spots, key=lambda spot: (spot["half"], spot["label"], spot["position"]))

    for one, other in zip(ordered(found), ordered(expected), strict=True):
        for name in ("confidence", "sigma_seconds"):
            assert float(one[name]) == pytest.approx(float(other[name]), rel=1e-4)
        same = ("gameTime", "label", "position", "half")
        assert [one[name] for name in same] == [other[name] for name in same]


def test_predictions_are_averaged_before_they_land(
    full, visual, loaded_full, loaded_visual, tmp_path, caplog
):
    """And sigma is that of the one member that has one."""
    runs.evaluate([visual, full], "test", tmp_path / "out", components=COMPONENTS)
    expected = []
    for number in (0, 1):
        first, second = (
            windows_of(forward, halves[number])
            for forward, halves, _ in (loaded_full, loaded_visual)
        )
        assert second.displacement_log_variance is None
        mean = Predictions(
            (first.probabilities + second.probabilities) / 2,
            (first.displacement_mean + second.displacement_mean) / 2,
            first.displacement_log_variance,
        )
        starts = np.array(clip_starts(SECONDS, 8, 20, 2)) * 2
        dense = place_scores(mean, starts.astype(np.int64), 2 * SECONDS, 2.0)
        spots = suppress(dense.scores, loaded_full[2].suppression)
        found = spots_to_predictions(spots, number + 1, CLASSES, 2.0)
        sigma = dense.sigma_seconds[spots.positions, spots.class_ids]
        expected += [
            spot | {"sigma_seconds": f"{s:.6g}"} for spot, s in zip(found, sigma, strict=True)
        ]
    assert_same_spots(spots_in(tmp_path / "out"), expected)
    assert len(expected) > 50
    written = json.loads((tmp_path / "out" / "provenance.json").read_text())
    assert [(of["workdir"], of["step"]) for of in written["members"]] == [
        (str(visual), 4),
        (str(full), 3),
    ]
    assert "workdir" not in written and written["split"] == "test"
    assert " lasts " not in caplog.text


def test_the_mean_is_of_probabilities_displacements_and_variances():
    def member(p: float, mu: float, variance: float | None) -> Predictions:
        log_variance = None if variance is None else np.full((1, 2, 3), np.log(variance))
        return Predictions(np.full((1, 2, 3), p), np.full((1, 2, 3), mu), log_variance)

    out = average_models([member(0.9, 1.0, 1.0), member(0.3, -4.0, None), member(0.3, 0.0, 4.0)])
    np.testing.assert_allclose(out.probabilities, 0.5)
    np.testing.assert_allclose(out.displacement_mean, -1)
    np.testing.assert_allclose(np.exp(out.displacement_log_variance), 2.5)
    assert average_models([member(0.9, 1.0, None)] * 2).displacement_log_variance is None
    # exp(1000) overflows.
    far = Predictions(np.zeros((1, 1, 1)), np.zeros((1, 1, 1)), np.full((1, 1, 1), 1e3))
    assert average_models([far, far]).displacement_log_variance.tolist() == [[[1e3]]]


@pytest.mark.parametrize("count", [3, 7])
def test_equal_members_give_their_own_values(count):
    rng = np.random.default_rng(0)
    draw = lambda: rng.normal(size=(3, 40, 18)).astype(np.float32)  # noqa: E731
    member = Predictions(np.abs(draw()), draw(), 5 * draw())
    for given, back in zip(
        jax.tree.leaves(member), jax.tree.leaves(average_models([member] * count)), strict=True
    ):
        assert back.dtype == np.float32 and np.array_equal(given, back)


def shorter(root: Path, folder: Path, fill: bool) -> Path:
    """The match of `visual` ending 10 s earlier, or with its last row again in those seconds."""
    shutil.copytree(root / VALID, folder / VALID)
    for half in (1, 2):
        path = folder / VALID / WIDE.format(half=half)
        rows = np.load(path)[:-10]
        np.save(path, np.concatenate([rows, rows[-1:].repeat(10, 0)]) if fill else rows)
    return folder


def test_a_member_whose_rows_end_earlier_goes_on_with_its_last(
    root, loaded_full, loaded_visual, tmp_path
):
    found = []
    for fill in (True, False):
        data = settings_of(visual_config(shorter(root, tmp_path / f"{fill}", fill))).data
        of_full = loaded_full[:2]
        of_visual = loaded_visual[0], index_halves(data, (VALID,), labelled=False)
        for members in ([of_full, of_visual], [of_visual, of_full]):
            both = Predictor(loaded_full[2], members)
            half = members[0][1][0]
            assert len(both.dense_scores(half).scores) == 2 * SECONDS
            found.append(both.spots(half))
    for spots in found[1:]:
        for name in ("class_ids", "positions", "scores", "sigma_seconds"):
            np.testing.assert_array_equal(getattr(found[0], name), getattr(spots, name))
    assert found[0].positions.max() > 2 * 112


def test_a_member_whose_rows_end_earlier_is_told_of(root, full, visual, tmp_path, caplog):
    config = visual_config(shorter(root, tmp_path / "data", fill=False))
    (tmp_path / "data" / "valid.txt").write_text(f"{VALID}\n")
    short = shutil.copytree(visual, tmp_path / "short")
    RunFolder(short).config_path.write_text(to_json(config))
    runs.evaluate([full, short], "test", tmp_path / "out", components=COMPONENTS)
    assert f"{VALID}: half 1 lasts 110.0 s for {short}, 120.0 s for {full}" in caplog.text
