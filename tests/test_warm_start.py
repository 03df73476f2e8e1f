"""A run that starts from another one's parameters: what is taken, fresh, refused."""

import contextlib
import dataclasses
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from helpers.kills import arrays_of
from helpers.matches import FAST, WIDE
from helpers.tiny import get_config, tiny_config, write_data
from ml_collections import ConfigDict

from astra_jax import runs
from astra_jax.cli.main import main
from astra_jax.config.saved import to_json
from astra_jax.devices import make_mesh, replicated
from astra_jax.errors import UserError
from astra_jax.model import ModelConfig, SourceConfig
from astra_jax.model.initial_values import abstract_params
from astra_jax.runs.prepare import prepare
from astra_jax.training import loop
from astra_jax.training.checkpoints import Checkpoints
from astra_jax.training.transfer import Match, Outline, match

pytestmark = pytest.mark.usefixtures("programs_once", "module_on_one_device")
HERE = Path(__file__).parent


# What fits


def outline(classes: str = "AB", sources: str = "xy", **meanings: object) -> Outline:
    return Outline(tuple(classes), tuple(sources), meanings)


def tree(start: float, **shapes: tuple[int, ...]) -> dict:
    """Arrays of rising numbers; `__` in a name stands for "/"."""
    found: dict = {}
    for name, shape in shapes.items():
        *parents, last = name.split("__")
        place = found
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = np.arange(np.prod(shape), dtype=np.float32).reshape(shape) + start
    return found


def taken(fresh: dict, stored: dict, ours: Outline, theirs: Outline) -> tuple[dict, Match]:
    found = match(fresh, stored, ours, theirs)
    return flatten_dict(found.filled(fresh, stored), sep="/"), found


def test_a_layer_is_taken_whole_or_not_at_all():
    fresh = tree(0, a__kernel=(2, 3), a__bias=(3,), b__kernel=(2, 2), b__bias=(2,), c=(2,))
    stored = tree(100, a__kernel=(4, 3), a__bias=(3,), b__kernel=(2, 2), b__bias=(2,), d=(1,))
    params, found = taken(fresh, stored, outline(), outline())
    assert params["b/bias"].tolist() == [100, 101] and params["b/kernel"][0, 0] == 100
    assert params["a/bias"].tolist() == [0, 1, 2] and params["c"].tolist() == [0, 1]
    assert found.notes("runs/a") == "fresh: a, c; left over in runs/a: a, d" and found.count == 6


def test_outputs_are_matched_by_the_names_of_the_classes():
    shapes = {"classification_head__output__kernel": (1, 4), "displacement_head__mean__bias": (4,)}
    fresh = tree(0, **shapes)
    stored = tree(100, **{name: (*shape[:-1], 3) for name, shape in shapes.items()})
    # Background, then B, new, A; there they are background, A, B.
    params, found = taken(fresh, stored, outline("BCA"), outline("AB"))
    assert params["classification_head/output/kernel"].tolist() == [[100, 102, 2, 101]]
    assert params["displacement_head/mean/bias"].tolist() == [100, 102, 2, 101]
    assert found.count == 6 and found.notes("runs/a") == "fresh: the outputs of C"
    back, found = taken(stored, fresh, outline("AB"), outline("BCA"))
    assert back["displacement_head/mean/bias"].tolist() == [0, 3, 1]
    assert found.notes("runs/a") == "left over in runs/a: the outputs of C"


def test_as_many_other_classes_are_not_taken_for_the_same():
    fresh, stored = (tree(start, classification_head__output__bias=(3,)) for start in (0, 100))
    params, found = taken(fresh, stored, outline("CD"), outline("AB"))
    assert params["classification_head/output/bias"].tolist() == [100, 1, 2]
    assert found.notes("w") == "fresh: the outputs of C, D; left over in w: the outputs of A, B"


@pytest.mark.parametrize(
    ("ours", "theirs", "values"),
    [
        ("yx", "xy", [101, 100]),
        ("zx", "xy", [0, 100]),  # no source is taken for another one that stands in its place
        ("xx", "xy", [100, 101]),  # their places, where names don't tell them apart
    ],
)
def test_sources_are_matched_by_their_files(ours, theirs, values):
    fresh = {f"source_{i}": {"code": np.zeros(1, np.float32)} for i in range(2)}
    stored = {f"source_{i}": {"code": np.full(1, 100 + i, np.float32)} for i in range(2)}
    params, _ = taken(fresh, stored, outline(sources=ours), outline(sources=theirs))
    assert [params[f"source_{i}/code"][0] for i in range(2)] == values


def test_many_names_are_cut_short():
    fresh = {f"module_{i:02}": np.zeros(1) for i in range(30)}
    notes = match(fresh, {}, outline(), outline()).notes("runs/a")
    assert notes.startswith("fresh: module_00, ") and notes.endswith("module_11 and 18 more")


MODEL = ModelConfig(
    sources=(SourceConfig(4, (3,)),),
    positions=4,
    classes=2,
    dim=8,
    heads=1,
    feed_forward=8,
    encoder_layers=1,
    decoder_layers=1,
    shortcut_reach=4.0,
)


@pytest.mark.parametrize("uncertainty", [True, False])
def test_every_parameter_that_the_number_of_classes_shapes_is_matched_by_class(uncertainty):
    models = [
        dataclasses.replace(MODEL, uncertainty=uncertainty, classes=classes) for classes in (2, 5)
    ]
    two, five = (abstract_params(model, replicated(make_mesh())) for model in models)
    found = match(five, two, outline("ABCDE"), outline("AC"))
    assert (found.fresh, found.left_over) == ("the outputs of B, D, E", "")
    assert found.paths.keys() == flatten_dict(five, sep="/").keys()


def changed(**groups: dict) -> Outline:
    config = get_config()
    config.model.shortcut_seconds = 4.0
    for group, values in groups.items():
        config[group].update(values)
    return Outline.from_config(config)


def test_codes_and_displacements_depend_on_the_times_they_are_of():
    plain = changed()
    shorter, finer = changed(clip={"seconds": 10}), changed(clip={"positions_per_second": 4.0})
    sources = ({"pattern": FAST, "rows_per_second": 1.0, "widths": (3,), "shortcut_columns": 2},)
    other = changed(data={"sources": sources})
    code, queries, shortcut = "source_0/time_code", "decoder/queries", "shortcut/queries/dense"
    mean = "displacement_head/mean/dense/bias"
    assert all(plain.meaning(path) for path in (code, queries, shortcut, mean))
    for path, agree in ((code, ""), (queries, ""), (shortcut, "s"), (mean, "s")):
        assert (plain.meaning(path) == shorter.meaning(path)) == (agree == "s"), path
    assert [plain.meaning(path) == finer.meaning(path) for path in (code, queries, mean)] == [
        *(True, False, False)
    ]
    assert plain.meaning(code) == other.meaning(code) and plain.meaning("encoder/x") == []
    assert plain.meaning(shortcut) != other.meaning(shortcut)


# Runs

CLASSES = ("Corner", "Goal", "Own goal")  # the last one is new


@pytest.fixture(scope="module")
def first(tmp_path_factory, module_on_one_device: None) -> Path:
    """A run's config and best checkpoint, as an import writes them too, beside its data."""
    folder = tmp_path_factory.mktemp("first")
    config = tiny_config(write_data(folder / "data"))
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: rng.normal(size=leaf.shape).astype(leaf.dtype) / 4,
        abstract_params(ModelConfig.from_config(config), replicated(make_mesh())),
    )
    with contextlib.closing(Checkpoints(folder / "run")) as checkpoints:
        checkpoints.save_best(6, params)
    (folder / "run" / "config.json").write_text(to_json(config), encoding="utf-8")
    return folder


def tuned(first: Path) -> ConfigDict:
    """Own classes; the second source alone is as it was, and frozen; an average."""
    config = tiny_config(first / "data")
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


def test_a_run_starts_from_another_one_and_goes_on_without_it(first, tmp_path, caplog, monkeypatch):
    shutil.copytree(first, tmp_path / "a")
    source, workdir, starts = tmp_path / "a" / "run", tmp_path / "b", []
    original = loop.with_params

    def noting(state: object, params: dict, mesh: object) -> object:
        starts.append(params)
        return original(state, params, mesh)

    def ends(self: object) -> None:
        raise UserError("ended before the first checkpoint")

    monkeypatch.setattr(loop, "with_params", noting)
    with monkeypatch.context() as patch, caplog.at_level("INFO", "astra_jax"):
        patch.setattr(loop.Trainer, "run", ends)
        with pytest.raises(UserError, match="before the first checkpoint"):
            runs.train(tuned(tmp_path / "a"), workdir)
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
    runs.train(tuned(tmp_path / "a"), workdir)
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
    assert runs.evaluate(workdir, "test", tmp_path / "out")["loose"]["a_mAP"] >= 0

    # As if it had been stopped behind the first epoch, and the other run deleted since.
    ended = params_of(workdir)
    shutil.rmtree(source)
    shutil.rmtree(workdir / "checkpoints" / "latest" / "6")
    moved = tuned(tmp_path / "a")
    moved.init_from = "elsewhere"
    with caplog.at_level("INFO", "astra_jax"):
        runs.train(moved, workdir)
    assert f"begun from {source}: init_from elsewhere is not read" in caplog.text
    assert json.loads((workdir / "config.json").read_text())["init_from"] == str(source)
    for name, value in params_of(workdir).items():
        np.testing.assert_array_equal(value, ended[name], err_msg=name)
    moved.init_from = None
    with pytest.raises(UserError, match="init_from differ"):
        runs.train(moved, workdir)
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
        with contextlib.closing(Checkpoints(source)) as checkpoints:
            checkpoints.save_best(6, {"other": np.zeros(3)})
    before = files(tmp_path)
    with pytest.raises(UserError, match=f"^config.init_from: .*{words}") as error:
        runs.train(config, workdir)
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


def test_a_dry_run_starts_from_it_too(first, tmp_path):
    prepared = prepare(tuned(first), tmp_path / "b")
    fresh = jax.tree.map(
        lambda leaf: np.zeros(leaf.shape, leaf.dtype),
        abstract_params(prepared.model_config, replicated(make_mesh())),
    )
    assert prepared.warm_start is not None
    started = prepared.warm_start(fresh)
    assert np.any(started["encoder"]["layer_0"]["feed_forward"]["hidden"]["dense"]["kernel"])


def test_what_starts_fresh_and_is_frozen_is_a_warning(first, tmp_path, caplog):
    def warnings() -> list[str]:
        told = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
        return [text for text in told if text.startswith("config.freeze")]

    prepare(tuned(first), tmp_path / "b")
    assert warnings() == []
    config = tuned(first)
    config.freeze = ("source_*", "decoder/queries")  # source_1 has another width
    prepare(config, tmp_path / "b")
    (text,) = warnings()
    assert "source_1/" in text and "queries" not in text and "source_0" not in text
