"""Rows and segments that windows share are embedded once, and nothing else changes by it."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from helpers.components import one_device
from helpers.ensemble import full_config, visual_config
from helpers.matches import FAST, MATCH, WIDE
from helpers.models import random_params
from helpers.plain import compile_apply, read_windows
from helpers.tiny import tiny_config
from ml_collections import ConfigDict

from astra_jax.data.halves import Half
from astra_jax.data.index import index_halves
from astra_jax.data.normalization import measure_normalizations, normalize
from astra_jax.data.time import clip_starts
from astra_jax.devices import make_mesh
from astra_jax.model import ASTRA, Predictions
from astra_jax.runs.folder import RunFolder
from astra_jax.runs.settings import Settings, resolve
from astra_jax.spotting.ensemble import average_models
from astra_jax.spotting.inference import Forward, Predictor, find_spots
from astra_jax.spotting.pieces import number_pieces, streams_of
from astra_jax.spotting.programs import Programs
from astra_jax.spotting.read_ahead import read_ahead
from astra_jax.spotting.schedule import Block, WindowLayout, schedule
from astra_jax.spotting.windows import merge_windows

SECONDS = (61, 33)
FRAMES = 10  # of audio, a second


def write_halves(root: Path, fast_rate: float = 2.0) -> Path:
    """A match of random rows and frames; its folder."""
    folder = root / MATCH
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for half, seconds in enumerate(SECONDS, start=1):
        wide = rng.normal(3, 2, (seconds, 6)).astype(np.float16)
        fast = rng.normal(size=(int(fast_rate * seconds), 3)).astype(np.float32)
        power = 100 * rng.random((16, FRAMES * seconds + 1), np.float32)
        for name, array in ((WIDE, wide), (FAST, fast), ("audio{half}.npy", power)):
            np.save(folder / name.format(half=half), array)
    return folder


def set_up(root: Path, config: ConfigDict) -> tuple[Settings, list[Half]]:
    settings = Settings.from_config(resolve(config, RunFolder(root)))
    halves = index_halves(settings.data, (MATCH,), labelled=False)
    return settings, normalize(halves, measure_normalizations(halves))


def plain(settings: Settings, members: list[tuple[Any, list[Half]]], half: int) -> Predictions:
    """What models say of the windows of a half together, every clip read and embedded for itself.

    Models are (model, parameters), each with the halves as it reads them.
    """
    starts = starts_of(settings, members, half)
    parts = [
        jax.device_get(compile_apply(model)(params, read_windows(halves[half], starts, 20)))
        for (model, params), halves in members
    ]
    return average_models(parts)


def starts_of(settings: Settings, members: list[Any], half: int) -> list[Any]:
    seconds = max(halves[half].seconds for _, halves in members)
    cfg = settings.inference
    return clip_starts(seconds, cfg.stride_seconds, cfg.clip_seconds, cfg.positions_per_second)


def check(settings: Settings, members: list[Any], mesh: Any) -> None:
    """The predictions of all windows, and the spots, are the plain way's."""
    predicted: list[list[Predictions]] = [[] for _ in members]

    def recorded(number: int) -> type[Programs]:
        class Recorded(Programs):
            def predict(self, *args: Any) -> Predictions:
                predicted[number].append(super().predict(*args))
                return predicted[number][-1]

        return Recorded

    forwards = [
        (Forward(recorded(number)(model, mesh), params), halves)
        for number, ((model, params), halves) in enumerate(members)
    ]
    predictor = Predictor(settings.inference, forwards)
    spots = list(predictor.all_spots(members[0][1]))
    assert len(spots) == 2
    for half in range(2):
        expected = plain(settings, members, half)
        starts = starts_of(settings, members, half)
        batches = -(-len(starts) // predictor.batch_size)
        own = [average_models(list(batch)) for batch in zip(*predicted, strict=True)][:batches]
        predicted = [of_member[batches:] for of_member in predicted]
        found = jax.tree.map(lambda *leaves: np.concatenate(leaves), *own)
        for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(one[: len(starts)], other, atol=2e-5, rtol=2e-5)
        cfg, seconds = settings.inference, max(halves[half].seconds for _, halves in members)
        dense = merge_windows(
            [expected], starts, seconds, cfg.positions_per_second, cfg.overlap, cfg.threshold
        )
        by_plain = find_spots(dense, cfg.suppression)
        assert places_of(spots[half]) == places_of(by_plain) and len(by_plain.scores) > 20
    assert predicted == [[] for _ in members]


def places_of(spots: Any) -> set[tuple[int, int]]:
    return set(zip(spots.class_ids.tolist(), spots.positions.tolist(), strict=True))


def with_uneven_stride(config: ConfigDict) -> None:
    """Segments of 16 frames begin at 8 phases; 1.998 rows a second at none that is whole."""
    config.inference.stride_seconds = 6.6
    config.data.sources[1]["rows_per_second"] = 1.998


def with_shortcut_and_clock(config: ConfigDict) -> None:
    with config.ignore_type():
        sources = [dict(source) for source in config.data.sources]
        sources[0]["shortcut_columns"] = 2
        sources.append({"pattern": "clock", "rows_per_second": 1, "widths": (8,)})
        config.data.sources = tuple(sources)
    config.model.update(shortcut_seconds=4.0, norm="pre", codes="sinusoidal")


CASES: dict[str, tuple[Callable[[ConfigDict], Any], Callable[[Path], Any]]] = {
    "whole": (lambda config: None, lambda folder: None),
    "uneven": (with_uneven_stride, lambda folder: None),
    "shortcut and clock": (with_shortcut_and_clock, lambda folder: None),
    "a source is absent, audio of one half too": (
        lambda config: None,
        lambda folder: [(folder / name).unlink() for name in ("1_fast.npy", "audio2.npy")],
    ),
    "files end early": (with_uneven_stride, lambda folder: shorten(folder)),
    "without uncertainty, by the mean": (
        lambda config: (
            config.model.update(uncertainty=False),
            config.loss.update(focal=False),
            config.inference.update(overlap="mean"),
        ),
        lambda folder: None,
    ),
}


def shorten(folder: Path) -> None:
    """Audio by 21 s, to be masked; rows by 3 s, whose last repeats."""
    power, fast = np.load(folder / "audio1.npy"), np.load(folder / "2_fast.npy")
    np.save(folder / "audio1.npy", power[:, : -21 * FRAMES])
    np.save(folder / "2_fast.npy", fast[:-6])


@pytest.mark.parametrize(
    ("devices", "batch_size", "case"),
    [*((1, 3, case) for case in CASES), (8, 8, "shortcut and clock"), (8, 8, "files end early")],
)
def test_windows_over_what_was_embedded_are_predicted_as_whole_clips(
    tmp_path: Path, devices: int, batch_size: int, case: str
) -> None:
    change, damage = CASES[case]
    config = full_config(tmp_path)
    config.inference.batch_size = batch_size
    change(config)
    damage(write_halves(tmp_path))
    settings, halves = set_up(tmp_path, config)
    model = ASTRA(settings.model)
    mesh = one_device() if devices == 1 else make_mesh()
    check(settings, [((model, random_params(model)), halves)], mesh)


def test_an_ensemble_embeds_what_each_member_reads(tmp_path: Path) -> None:
    write_halves(tmp_path)
    members = []
    for config in (full_config(tmp_path), visual_config(tmp_path)):
        config.inference.update(batch_size=3, stride_seconds=7.0)
        settings, halves = set_up(tmp_path, config)
        model = ASTRA(settings.model)
        members.append(((model, random_params(model, len(members))), halves))
    check(settings, members, one_device())


def test_pieces_are_counted_once_and_in_the_order_of_need(tmp_path: Path) -> None:
    write_halves(tmp_path)
    settings, (half, _) = set_up(tmp_path, full_config(tmp_path))
    rows, _, audio = streams_of(settings.model)
    of_rows = number_pieces(half, rows, [0, 8, 16])
    assert of_rows.first.tolist() == list(range(36))
    assert of_rows.of_window[1].tolist() == list(range(8, 28))
    # Windows of 12 segments of 16 frames, 70 frames apart: the third begins at 140, and the ninth,
    # 560 frames after the first, is the first to begin where another's segment does.
    of_audio = number_pieces(half, audio, [7 * k for k in range(3)])
    assert of_audio.first.tolist() == [70 * k + 16 * j for k in range(3) for j in range(12)]
    # 8 s are five segments.
    of_audio = number_pieces(half, audio, [0, 8])
    assert of_audio.first.tolist() == [16 * j for j in range(17)]
    assert of_audio.of_window[1].tolist() == list(range(5, 17))


class Counted(Programs):
    """Counts the pieces that it embeds and the programs that are traced."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.embedded: dict[int, int] = {}
        self.traced: list[str] = []

    def embed(self, params: Any, store: Any, stream: int, pieces: Any, *args: Any) -> Any:
        self.embedded[stream] = self.embedded.get(stream, 0) + len(pieces)
        return super().embed(params, store, stream, pieces, *args)

    def _embed_block(self, *args: Any, **kwargs: Any) -> Any:
        self.traced.append("embed")
        return super()._embed_block(*args, **kwargs)

    def _predict_windows(self, *args: Any, **kwargs: Any) -> Any:
        self.traced.append("predict")
        return super()._predict_windows(*args, **kwargs)


def test_halves_of_any_length_take_one_program_a_stream_and_embed_no_row_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("astra_jax.spotting.schedule._FEWEST_ROWS", 1)
    write_halves(tmp_path)
    config = full_config(tmp_path)
    config.inference.batch_size = 2
    settings, halves = set_up(tmp_path, config)
    model = ASTRA(settings.model)
    programs = Counted(model, one_device())
    forward = Forward(programs, random_params(model))
    short = dataclasses.replace(halves[0], seconds=5)
    for some in (halves, [short], halves):
        list(Predictor(settings.inference, [(forward, some)]).all_spots(some))
    assert sorted(programs.traced) == ["embed"] * 3 + ["predict"]
    programs.embedded.clear()
    list(Predictor(settings.inference, [(forward, halves)]).all_spots(halves))
    # 8 and 4 windows of 20 rows: 76 and 44 distinct ones, in blocks of 16.
    assert programs.embedded[0] == 80 + 48


def test_a_batch_is_sent_off_before_the_one_before_it_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_halves(tmp_path)
    config = visual_config(tmp_path)
    config.inference.batch_size = 2
    settings, halves = set_up(tmp_path, config)
    model, events = ASTRA(settings.model), []

    class Sent(Programs):
        def predict(self, *args: Any) -> Any:
            events.append("sent")
            return super().predict(*args)

    get = jax.device_get
    monkeypatch.setattr(jax, "device_get", lambda tree: events.append("fetched") or get(tree))
    forward = Forward(Sent(model, one_device()), random_params(model))
    list(Predictor(settings.inference, [(forward, halves)]).all_spots(halves))
    # Four batches, then two: also from one half to the next.
    assert events == ["sent", *["sent", "fetched"] * 5, "fetched"]


def test_parameters_on_the_devices_are_taken_as_they_are(tmp_path: Path) -> None:
    model = ASTRA(Settings.from_config(resolve(tiny_config(tmp_path), RunFolder(tmp_path))).model)
    everywhere = Forward(Programs(model, make_mesh()), random_params(model)).params
    programs = Programs(model, one_device())
    with jax.transfer_guard("disallow_explicit"):
        taken = Forward(programs, everywhere).params
    for leaf, of_all in zip(jax.tree.leaves(taken), jax.tree.leaves(everywhere), strict=True):
        held = of_all.addressable_shards[0].data
        assert leaf.unsafe_buffer_pointer() == held.unsafe_buffer_pointer()
        assert leaf.sharding.device_set == {jax.devices()[0]}


def test_what_is_read_ahead_comes_in_order_and_fails_where_it_failed() -> None:
    def items() -> Any:
        yield 1
        yield 2
        raise ValueError("the third")

    found = []
    with pytest.raises(ValueError, match="the third"):
        for item in read_ahead(items(), 1):
            found.append(item)
    assert found == [1, 2]


def test_reading_ahead_ends_with_its_reader() -> None:
    drawn = []

    def items() -> Any:
        for number in range(1000):
            drawn.append(number)
            yield number

    reader = read_ahead(items(), 2)
    assert next(reader) == 0
    reader.close()
    assert len(drawn) <= 5


@pytest.mark.parametrize("stride", [2.4, 3.3, 7.0, 20.0])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_piece_keeps_its_place_until_no_window_needs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stride: float, batch_size: int
) -> None:
    """With a stride of 24 frames every other window's segments of 16 begin where others' do."""
    monkeypatch.setattr("astra_jax.spotting.schedule._FEWEST_ROWS", 1)
    monkeypatch.setattr("astra_jax.spotting.schedule._SEGMENTS_A_WINDOW", 2)
    write_halves(tmp_path)
    settings, (half, _) = set_up(tmp_path, full_config(tmp_path))
    starts = clip_starts(half.seconds, stride, 20, 2)
    streams = streams_of(settings.model)
    layout = WindowLayout(20, stride, batch_size, devices=1)
    stores: list[Any] = [None] * len(streams)
    seen = 0
    for item in schedule(0, [(half, streams)], starts, layout):
        if isinstance(item, Block):
            if stores[item.stream] is None:
                shape = (item.size, *item.pieces.shape[1:])
                stores[item.stream] = np.full(shape, np.nan, np.float32)
            stores[item.stream][item.place : item.place + len(item.pieces)] = item.pieces
            continue
        whole = read_windows(half, starts[seen : seen + item.count], 20)
        for index in range(2):
            found = stores[index][item.places[0][index]][: item.count]
            np.testing.assert_array_equal(found, whole["features"][index])
        segments = stores[2][item.places[0][2]][: item.count]
        frames = whole["log_mel"][:, :192].reshape(segments.shape)
        np.testing.assert_array_equal(segments, frames)
        seen += item.count
        assert item.last == (seen == len(starts))
    assert seen == len(starts)
