"""Simulated matches: their bytes, their events, their signals."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from astra_jax.config.classes import CLASSES
from astra_jax.config.defaults import paper
from astra_jax.config.simulated import (
    EMBEDDING_WIDTHS,
    FRAMES_PER_SECOND,
    MELS,
    simulated_data,
    simulated_matches,
)
from astra_jax.data.audio import power_to_db
from astra_jax.data.halves import Half
from astra_jax.data.index import index_halves
from astra_jax.data.simulation.events import (
    SHORTEST_GAP_SECONDS,
    HalfEvents,
    build_chain,
    draw_events,
)
from astra_jax.data.simulation.signals import embeddings, mel_power
from astra_jax.data.simulation.statistics import boosted_rates, measured_statistics
from astra_jax.data.simulation.writer import (
    JITTERED_CLASSES,
    SimulationSpec,
    read_spec,
    world,
    write_matches,
)
from astra_jax.data.sources import DataSpec
from astra_jax.data.splits import load_split
from astra_jax.errors import UserError

DEMO = SimulationSpec.from_config(simulated_matches().to_dict())
SMALL = dataclasses.replace(
    DEMO, train_matches=1, valid_matches=1, test_matches=1, half_seconds=60, density=3.0
)


def read_files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def open_halves(root: Path, split: str) -> list[Half]:
    data = paper().data
    with data.ignore_type():
        data.update(simulated_data())
        data.root = str(root)
    return index_halves(
        DataSpec.from_config(data.to_dict()), load_split(str(root / f"{split}.txt"))
    )


def many_events(spec: SimulationSpec, halves: int) -> list[HalfEvents]:
    chain, _ = world(spec)
    return [
        draw_events(chain, spec.half_seconds, np.random.default_rng([7, k])) for k in range(halves)
    ]


def test_the_same_spec_writes_the_same_bytes(tmp_path: Path) -> None:
    write_matches(tmp_path / "a", SMALL)
    write_matches(tmp_path / "b", SMALL)
    first = read_files(tmp_path / "a")
    assert first == read_files(tmp_path / "b")
    # Three matches of six files, three split lists and the spec.
    assert len(first) == 3 * 6 + 4


def test_another_seed_writes_other_matches(tmp_path: Path) -> None:
    write_matches(tmp_path / "a", SMALL)
    write_matches(tmp_path / "b", dataclasses.replace(SMALL, seed=SMALL.seed + 1))
    name = "simulated/train/match_000/1_simulated_embeddings.npy"
    assert (tmp_path / "a" / name).read_bytes() != (tmp_path / "b" / name).read_bytes()


def test_a_match_does_not_depend_on_the_number_of_matches(tmp_path: Path) -> None:
    write_matches(tmp_path / "few", SMALL)
    write_matches(tmp_path / "more", dataclasses.replace(SMALL, train_matches=2))
    few, more = (read_files(tmp_path / name / "simulated") for name in ("few", "more"))
    assert set(more) - set(few) == {name for name in more if name.startswith("train/match_001/")}
    assert all(more[name] == content for name, content in few.items())


def test_matches_are_read_as_any_other(tmp_path: Path) -> None:
    write_matches(tmp_path, SMALL)
    halves = open_halves(tmp_path, "test")
    assert [(half.match, half.half) for half in halves] == [
        ("simulated/test/match_000", 1),
        ("simulated/test/match_000", 2),
    ]
    for half in halves:
        assert half.seconds == 60
        rows, present = half.read_source(0, 0, 60)
        assert rows.shape == (60, sum(EMBEDDING_WIDTHS)) and present.all()
        power, present = half.read_mel_power(0, 60 * FRAMES_PER_SECOND)
        assert power.shape == (60 * FRAMES_PER_SECOND, MELS) and present.all()
        assert np.isfinite(rows).all() and np.isfinite(power).all() and (power > 0).all()
        assert len(half.events) > 0


def test_expected_frequencies_have_the_measured_order() -> None:
    measured = measured_statistics().events_per_second
    rates = boosted_rates(measured_statistics(), 0.3, 1.6)
    np.testing.assert_array_equal(np.argsort(rates), np.argsort(measured))
    assert rates.sum() == pytest.approx(1.6 * measured.sum())
    # Red cards are 480 times rarer than balls out of play; now 480 ** 0.3 = 6.4 times.
    ratio = rates[CLASSES.index("Ball out of play")] / rates[CLASSES.index("Red card")]
    assert ratio == pytest.approx((31.265 / 0.065) ** 0.3)


def test_drawn_frequencies_follow_the_rates_and_not_the_transitions() -> None:
    halves = many_events(DEMO, 400)
    counts = np.bincount(np.concatenate([h.class_ids for h in halves]), minlength=len(CLASSES))
    expected = DEMO.rates * DEMO.half_seconds * len(halves)
    assert counts.sum() == pytest.approx(expected.sum(), rel=0.05)
    np.testing.assert_allclose(counts, expected, rtol=0.25)
    assert counts.argmax() == CLASSES.index("Ball out of play")
    assert counts.argmin() == CLASSES.index("Yellow->red card")
    assert np.corrcoef(np.log(counts), np.log(expected))[0, 1] > 0.97


def test_measured_transitions_survive_where_rates_allow() -> None:
    chain = build_chain(measured_statistics(), measured_statistics().events_per_second, 2700.0)
    np.testing.assert_allclose(chain.transitions.sum(1), 1.0)
    # Measured: 0.83 and 0.79; smoothing and the fit to the rates move them a little.
    goal, offside = CLASSES.index("Goal"), CLASSES.index("Offside")
    assert chain.transitions[goal].argmax() == CLASSES.index("Kick-off")
    assert chain.transitions[offside].argmax() == CLASSES.index("Indirect free-kick")
    assert chain.transitions[goal].max() > 0.6 and chain.transitions[offside].max() > 0.6


def test_gaps_are_neither_too_short_nor_far_too_long() -> None:
    gaps = np.concatenate([np.diff(half.seconds) for half in many_events(DEMO, 100)])
    assert gaps.min() >= SHORTEST_GAP_SECONDS
    assert 8 < np.median(gaps) < 20
    assert np.quantile(gaps, 0.95) < 60


def test_the_share_of_hidden_events_is_the_measured_one() -> None:
    halves = many_events(DEMO, 400)
    classes = np.concatenate([half.class_ids for half in halves])
    visible = np.concatenate([half.visible for half in halves])
    hidden = measured_statistics().not_shown
    for label in ("Kick-off", "Clearance", "Throw-in", "Goal"):
        index = CLASSES.index(label)
        assert 1 - visible[classes == index].mean() == pytest.approx(hidden[index], abs=0.06)
    assert visible[classes == CLASSES.index("Goal")].all()


def test_hidden_events_show_less_and_sound_more() -> None:
    """The same events, once on the screen and once not, with the same noise."""
    spec = dataclasses.replace(DEMO, half_seconds=600)
    chain, patterns = world(spec)
    events = draw_events(chain, 600, np.random.default_rng(3))
    nothing = dataclasses.replace(
        events, **{f.name: getattr(events, f.name)[:0] for f in dataclasses.fields(events)}
    )

    def energies(visible: bool) -> tuple[float, float]:
        one = dataclasses.replace(events, visible=np.full(len(events.class_ids), visible))
        picture = embeddings(patterns, spec.signals, one, 600, np.random.default_rng(5))
        sound = mel_power(patterns, spec.signals, one, 600, np.random.default_rng(6))
        return float(np.square(picture).mean()), float(np.square(power_to_db(sound)).std())

    silent_picture = embeddings(patterns, spec.signals, nothing, 600, np.random.default_rng(5))
    shown, hidden = energies(True), energies(False)
    floor = float(np.square(silent_picture).mean())
    assert hidden[0] - floor < 0.2 * (shown[0] - floor)
    assert hidden[1] > shown[1]


def test_the_true_jitter_is_stored_and_larger_for_some_classes(tmp_path: Path) -> None:
    write_matches(tmp_path, dataclasses.replace(DEMO, train_matches=6, valid_matches=1))
    jitter: dict[bool, list[float]] = {True: [], False: []}
    for name in load_split(str(tmp_path / "train.txt")):
        truth = json.loads((tmp_path / name / "true_events.json").read_text())["events"]
        labels = json.loads((tmp_path / name / "Labels-v2.json").read_text())["annotations"]
        assert [str(event["annotated_ms"]) for event in truth] == [a["position"] for a in labels]
        assert [event["label"] for event in truth] == [a["label"] for a in labels]
        for event in truth:
            assert event["annotated_ms"] - event["true_ms"] == pytest.approx(event["jitter_ms"])
            jitter[event["label"] in JITTERED_CLASSES].append(event["jitter_ms"])
    assert np.std(jitter[False]) == pytest.approx(150, rel=0.15)
    assert np.std(jitter[True]) == pytest.approx(900, rel=0.25)


def test_finished_matches_are_found_again(tmp_path: Path) -> None:
    write_matches(tmp_path, SMALL)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    write_matches(tmp_path, SMALL)
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert read_spec(tmp_path) == SMALL


def test_a_run_that_was_cut_off_is_done_again(tmp_path: Path) -> None:
    write_matches(tmp_path / "whole", SMALL)
    write_matches(tmp_path / "cut", SMALL)
    cut = tmp_path / "cut"
    (cut / "simulation.json").rename(cut / "simulation.json.partial")
    (cut / "simulated/test/match_000/audio1.npy").write_bytes(b"half a file")
    write_matches(cut, SMALL)
    assert read_files(cut) == read_files(tmp_path / "whole")


def test_matches_of_another_spec_are_an_error(tmp_path: Path) -> None:
    write_matches(tmp_path, SMALL)
    with pytest.raises(UserError, match="another spec.*delete") as caught:
        write_matches(tmp_path, dataclasses.replace(SMALL, seed=99))
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("mine\n")
    with pytest.raises(UserError, match="no simulated matches"):
        write_matches(tmp_path, SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["train.txt"]


@pytest.mark.parametrize(("key", "message"), [("halves", "config.simulation.halves: is no option")])
def test_an_unknown_option_is_named(key: str, message: str) -> None:
    config = simulated_matches().to_dict() | {key: 1}
    with pytest.raises(UserError, match=message):
        SimulationSpec.from_config(config)


def test_a_missing_option_is_named() -> None:
    config = simulated_matches().to_dict()
    del config["signals"]["drift"]
    with pytest.raises(UserError, match="config.simulation.signals.drift: is missing"):
        SimulationSpec.from_config(config)
