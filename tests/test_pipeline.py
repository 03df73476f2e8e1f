"""The training stream: the same bytes for any number of workers, processes, devices, resumes."""

import hashlib
import logging
import multiprocessing
import os
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers.matches import MATCH, WIDE, annotation, index, stream_config, write_match
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from astra_jax.config.classes import CLASSES
from astra_jax.config.clock import clock_source
from astra_jax.data.audio import power_to_db
from astra_jax.data.clips import classes_in_clips, read_clip, read_targets
from astra_jax.data.halves import Half, Normalization, in_half_precision
from astra_jax.data.mixing import finish_mixing, mix
from astra_jax.data.normalization import normalize
from astra_jax.data.pipeline import TrainingStream
from astra_jax.data.splits import load_split
from astra_jax.data.targets import TargetSpec
from astra_jax.data.time import clip_starts
from astra_jax.devices import put_batch
from astra_jax.errors import UserError

COMMENTARY = Path(__file__).parents[2] / "shared" / "data" / "commentary"
OTHER = "league/season/C - D"
SPEC = TargetSpec(50, 2, 2, 3, len(CLASSES))


@pytest.fixture
def halves(tmp_path: Path) -> list[Half]:
    """Two matches of 300 s halves, 6 pairs of clips each; the second lacks a source and audio."""
    rows = [
        annotation(half, 1000 * s, CLASSES[s % 17]) for half in (1, 2) for s in range(3, 295, 7)
    ]
    write_match(tmp_path, MATCH, (300, 300), rows)
    folder = write_match(tmp_path, OTHER, (300, 300), rows[::3], seed=5000)
    (folder / WIDE.format(half=1)).unlink()
    (folder / "audio2.npy").unlink()
    return index(tmp_path, MATCH, OTHER)


def digest(batch: dict) -> str:
    leaves, structure = jax.tree.flatten(batch)
    value = hashlib.sha256(str(structure).encode())
    for leaf in leaves:
        array = np.asarray(leaf)
        value.update(f"{array.dtype}{array.shape}".encode())
        value.update(np.ascontiguousarray(array).tobytes())
    return value.hexdigest()


def digests(halves: list[Half], start: int, stop: int, **changes: object) -> list[str]:
    stream = TrainingStream(halves, stream_config(**changes))
    return [digest(batch) for batch in stream.batches(start, stop)]


def test_a_batch_holds_the_planned_clips_mixed(halves):
    stream = TrainingStream(halves, stream_config())
    assert stream.steps_per_epoch == 3 and stream.clips(0).pairs.shape == (24, 2)
    batches = list(stream.batches(0, 5))
    assert len(batches) == 5
    starts = [(half, start) for half in halves for start in range(0, 299, 25)]
    for step, batch in enumerate(batches):
        entry = stream.plan(step // 3)
        for row in range(8):
            expected, partner = (
                read_clip(*starts[clips[step % 3, row]], SPEC)
                for clips in (entry.own, entry.partner)
            )
            mix(expected, partner, entry.lam[step % 3])
            assert digest(jax.tree.map(lambda array: array[row], batch)) == digest(expected)  # noqa: B023


def test_random_starts_cut_the_halves_elsewhere_in_every_epoch(halves):
    config = stream_config(clip={"random_starts": True}, mixup={"kind": "none"})
    stream = TrainingStream(halves, config)
    first_rows = []
    for epoch in range(4):
        batches = stream.batches(3 * epoch, 3 * epoch + 3)
        # Of the second half, whose source gives the time away: 2000 + row, whole and in reach.
        rows = np.concatenate([batch["features"][1][:, 0, 0] for batch in batches])
        own = np.sort(rows[(rows >= 2000) & (rows < 2600)] - 2000) / 2
        first_rows.append(tuple(own))
        assert len(own) == 6 and (np.diff(own[own > 0]) % 25 == 0).all()
    assert len({rows[-1] % 25 for rows in first_rows}) > 1
    again = TrainingStream(halves, config).batches(0, 12)
    digests_again = [digest(batch) for batch in again]
    assert digests_again == [digest(batch) for batch in stream.batches(0, 12)]
    assert digests_again[5:] == [digest(batch) for batch in stream.batches(5, 12)]


def test_the_clips_of_random_starts_cover_every_half(halves):
    config = stream_config(clip={"random_starts": True})
    loader = TrainingStream(halves, config)._loader
    for epoch in range(5):
        _, where = loader.place_clips(epoch)
        for number in range(len(halves)):
            starts = [start for half, start in where if half == number]
            assert starts[0] == 0 and max(np.diff(starts)) <= 25 and starts[-1] + 50 > 300


def test_random_starts_keep_the_rows_of_slow_sources_whole(tmp_path):
    write_match(tmp_path, seconds=(301, 301), audio=False)
    sources = ({"pattern": WIDE, "rows_per_second": 1, "widths": (6,)}, clock_source(0.5))
    config = stream_config(batch_size=4, clip={"random_starts": True}, mixup={"kind": "none"})
    stream = TrainingStream(index(tmp_path, sources=sources, audio=None), config)
    for batch in stream.batches(0, 9):
        seconds = batch["features"][0][:, 0, 0] % 1000
        assert (seconds % 2 == 0).all()
        # Column 3 of the clock is exp(-seconds / 300).
        np.testing.assert_allclose(batch["features"][1][:, 0, 3], np.exp(-seconds / 300), rtol=1e-5)


def test_random_starts_that_cannot_move_are_refused(halves):
    config = stream_config(clip={"random_starts": True, "stride_seconds": 1.0})
    with pytest.raises(UserError, match="clip.random_starts: clips start every 1 s"):
        TrainingStream(halves, config)


def test_shapes_and_types_are_those_of_the_config(halves):
    batch = next(TrainingStream(halves, stream_config()).batches(0, 1))
    shapes = jax.tree.map(lambda array: (array.dtype.name, array.shape), batch)
    assert shapes == {
        "features": (("float32", (8, 50, 6)), ("float32", (8, 100, 3))),
        "log_mel": ("float32", (8, 5000, 4)),
        "masks": {
            "features": (("bool", (8, 50)), ("bool", (8, 100))),
            "log_mel": ("bool", (8, 5000)),
        },
        "class_targets": ("float32", (8, 100, 18)),
        "displacements": ("float32", (8, 100, 18)),
        "displacement_mask": ("bool", (8, 100, 18)),
    }


@pytest.fixture
def halved(halves) -> list[Half]:
    """The same matches, the first source in half precision and not normalised."""
    for half in halves:
        if (file := half.sources[0]) is not None:
            np.save(file.path, np.load(file.path).astype(np.float16))
    root = halves[0].spec.features_root
    return index(root, MATCH, OTHER)


@pytest.mark.parametrize("kind", ["balanced", "none"])
def test_half_precision_travels_as_it_is_and_becomes_the_mix_of_its_values(halved, kind):
    stream = TrainingStream(halved, stream_config(mixup={"kind": kind}))
    entry = stream.plan(0)
    starts = [(half, start) for half in halved for start in range(0, 299, 25)]
    batch = next(stream.batches(0, 1))
    assert [rows.dtype for rows in batch["features"]] == [np.float16, np.float32]
    assert ("partner" in batch) == ("lam" in batch) == (kind == "balanced")
    if kind == "balanced":
        assert batch["lam"].shape == (8,) and batch["partner"]["features"][1] is None
        assert batch["partner"]["features"][0].dtype == np.float16
    batch = finish_mixing(batch)
    for row in range(8):
        expected = read_clip(*starts[entry.own[0, row]], SPEC)
        if kind == "balanced":
            mix(expected, read_clip(*starts[entry.partner[0, row]], SPEC), entry.lam[0])
        assert digest(jax.tree.map(lambda array: array[row], batch)) == digest(expected)  # noqa: B023


def test_half_precision_is_the_same_bytes_for_any_number_of_workers_and_processes(halved):
    whole = digests(halved, 0, 6)
    assert digests(halved, 0, 6, workers=1) == digests(halved, 0, 6, workers=2) == whole
    parts = [list(TrainingStream(halved, stream_config(), i, 2).batches(0, 6)) for i in range(2)]
    joined = [
        jax.tree.map(lambda *of: np.concatenate(of), *pair) for pair in zip(*parts, strict=True)
    ]
    assert [digest(batch) for batch in joined] == whole


def test_one_file_in_single_precision_or_a_normalisation_decides_for_its_source(halved):
    assert in_half_precision(halved) == (True, False)
    norms = (Normalization(np.zeros(6, np.float32), np.float32(1)), None)
    assert in_half_precision(normalize(halved, norms)) == (False, False)
    path = halved[3].sources[0].path
    np.save(path, np.load(path).astype(np.float32))
    again = index(halved[0].spec.features_root, MATCH, OTHER)
    assert in_half_precision(again) == (False, False)
    batch = next(TrainingStream(again, stream_config()).batches(0, 1))
    assert batch["features"][0].dtype == np.float32 and "partner" not in batch


def test_the_classes_of_clips_are_those_of_their_targets(tmp_path):
    """Events dense enough that some clips have no background, and halves without any."""
    rng = np.random.default_rng(0)
    for number, count in enumerate((0, 3, 60, 400, 1500)):
        times = np.sort(rng.integers(200_000, size=count)).tolist()
        rows = [annotation(1, ms, CLASSES[int(rng.integers(17))]) for ms in times]
        write_match(tmp_path, f"a/b/{number}", (200, 20), rows, audio=False)
    found = index(tmp_path, *(f"a/b/{number}" for number in range(5)), audio=None)
    starts = [clip_starts(half.seconds, 2.3, 10, 2) for half in found]
    for radius in (0, 0.5, 2):
        spec = TargetSpec(10, 2, radius, 3, 17)
        held = classes_in_clips(found, starts, spec)
        expected = [
            read_targets(half, start, spec).class_targets.any(axis=0)
            for half, of_half in zip(found, starts, strict=True)
            for start in of_half
        ]
        np.testing.assert_array_equal(held, expected)
        assert radius < 2 or not held[:, 0].all()


def test_a_clip_holds_its_rows_decibels_and_targets(halves):
    clip = read_clip(halves[0], 275, SPEC)
    assert clip["features"][0][:, 0].tolist() == [1275 + min(i, 24) for i in range(50)]
    assert clip["features"][1][:, 0].tolist() == [1550 + min(i, 49) for i in range(100)]
    power = np.minimum(np.arange(28_500, 33_500), 30_999).astype(np.float32)
    np.testing.assert_array_equal(clip["log_mel"][:, 0], power_to_db(power))
    # Events every 7 s from 3 s; the first in the clip is second 276, class 276 % 17 = 4.
    assert np.flatnonzero(clip["class_targets"][:, 5])[:7].tolist() == [0, 1, 2, 3, 4, 5, 6]


def test_a_clip_without_audio_is_at_the_floor_and_masked(halves):
    clip = read_clip(halves[3], 0, SPEC)
    assert (clip["log_mel"] == -80).all() and not clip["masks"]["log_mel"].any()


def test_without_audio_in_the_data_set_the_key_is_absent(tmp_path):
    write_match(tmp_path, seconds=(300, 300), audio=False)
    stream = TrainingStream(index(tmp_path, audio=None), stream_config())
    batch = next(stream.batches(0, 1))
    assert "log_mel" not in batch and "log_mel" not in batch["masks"]


@pytest.mark.parametrize(("kind", "clips_read"), [("none", 8), ("plain", 16), ("balanced", 16)])
def test_without_mixup_no_partner_is_read(halves, monkeypatch, kind, clips_read):
    opened = []
    opens = os.open
    monkeypatch.setattr(os, "open", lambda *args: opened.append(args[0]) or opens(*args))
    batch = next(TrainingStream(halves, stream_config(mixup={"kind": kind})).batches(0, 1))
    # Every half has this source, and a clip opens its file once.
    assert len([path for path in opened if str(path).endswith("_fast.npy")]) == clips_read
    assert (set(np.unique(batch["class_targets"])) == {0, 1}) == (kind == "none")


def test_batches_are_the_same_bytes_after_any_resume(halves):
    whole = digests(halves, 0, 8)
    assert len(set(whole)) == 8
    for start in (1, 3, 5):
        assert digests(halves, start, 8) == whole[start:]


def test_batches_are_the_same_bytes_for_any_number_of_workers(halves):
    starts = {"random_starts": True}
    assert digests(halves, 1, 8, workers=2, clip=starts) == digests(halves, 1, 8, clip=starts)


def test_the_slices_of_all_processes_make_up_the_batch(halves):
    config = stream_config()
    whole = list(TrainingStream(halves, config).batches(2, 5))
    parts = [list(TrainingStream(halves, config, index, 4).batches(2, 5)) for index in range(4)]
    for step in range(3):
        joined = jax.tree.map(
            lambda *arrays: np.concatenate(arrays), *(part[step] for part in parts)
        )
        assert digest(joined) == digest(whole[step])


@pytest.mark.parametrize(("devices", "workers"), [(1, 0), (8, 0), (8, 1)])
def test_the_devices_hold_the_same_bytes(halves, devices, workers):
    mesh = jax.make_mesh(
        (devices,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices]
    )
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    stream = TrainingStream(halves, stream_config(workers=workers))
    # All are placed before one is looked at: a batch must not live in memory that the next one
    # takes over.
    placed = [put_batch(batch, sharding) for batch in stream.batches(2, 8)]
    assert all(array.sharding == sharding for array in jax.tree.leaves(placed))
    assert [digest(batch) for batch in placed] == digests(halves, 2, 8)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_user_error_while_loading_surfaces_as_itself(halves, workers):
    broken = halves[0].sources[0].path
    values = np.load(broken)
    values[:] = np.nan
    np.save(broken, values)
    stream = TrainingStream(halves, stream_config(workers=workers))
    with pytest.raises(UserError, match="NaN") as error:
        list(stream.batches(0, 6))
    assert str(broken) in str(error.value) and "\n" not in str(error.value)


def test_leaving_early_ends_the_workers(halves):
    batches = TrainingStream(halves, stream_config(workers=2)).batches(0, 1000)
    next(batches)
    assert len(multiprocessing.active_children()) == 2
    batches.close()
    assert not multiprocessing.active_children()


def test_a_worker_that_dies_is_an_error_that_names_the_key(halves):
    batches = TrainingStream(halves, stream_config(workers=1)).batches(0, 1000)
    next(batches)
    (worker,) = multiprocessing.active_children()
    worker.kill()
    with pytest.raises(UserError, match=r"data\.workers"):
        list(batches)


def test_a_batch_larger_than_an_epoch_names_its_key(halves):
    with pytest.raises(UserError, match=r"training\.batch_size: 25.*24 clips") as error:
        TrainingStream(halves, stream_config(batch_size=25))
    assert "\n" not in str(error.value)


def test_a_batch_that_the_processes_do_not_divide_is_an_error(halves):
    with pytest.raises(UserError, match=r"training\.batch_size: 8.*3 process"):
        TrainingStream(halves, stream_config(), 0, 3)


@pytest.mark.skipif(not COMMENTARY.is_dir(), reason="the real commentary features are not here")
def test_a_batch_of_real_commentary_at_two_rates(caplog):
    sources = (
        {"pattern": "{half}_commentary_words.npy", "rows_per_second": 1, "widths": (17, 32)},
        {"pattern": "{half}_commentary_pace.npy", "rows_per_second": 2, "widths": (6,)},
    )
    with caplog.at_level(logging.ERROR):
        halves = index(
            COMMENTARY, *load_split(str(COMMENTARY / "train.txt")), sources=sources, audio=None
        )
    stream = TrainingStream(halves, stream_config())
    assert stream.steps_per_epoch > 1000 and stream.clips(0).holds.any(axis=0).all()
    batch = next(stream.batches(5000, 5001))
    assert [array.shape for array in batch["features"]] == [(8, 50, 49), (8, 100, 6)]
    assert all(mask.all() for mask in batch["masks"]["features"])
    assert all(np.isfinite(array).all() for array in batch["features"])
