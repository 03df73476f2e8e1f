"""What fits of another run's parameters: by what they mean, and by shape."""

import dataclasses

import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from helpers.matches import FAST
from helpers.tiny import get_config

from astra_jax.devices import make_mesh, replicated
from astra_jax.model import ASTRA, ModelConfig, SourceShape, abstract_params
from astra_jax.training.transfer import Outline, Transfer, plan_transfer


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


def taken(fresh: dict, stored: dict, ours: Outline, theirs: Outline) -> tuple[dict, Transfer]:
    found = plan_transfer(fresh, stored, ours, theirs)
    return flatten_dict(found.apply(fresh, stored), sep="/"), found


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
    notes = plan_transfer(fresh, {}, outline(), outline()).notes("runs/a")
    assert notes.startswith("fresh: module_00, ") and notes.endswith("module_11 and 18 more")


MODEL = ModelConfig(
    sources=(SourceShape(4, (3,)),),
    positions=4,
    num_classes=2,
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
        dataclasses.replace(MODEL, uncertainty=uncertainty, num_classes=classes)
        for classes in (2, 5)
    ]
    two, five = (abstract_params(ASTRA(model), replicated(make_mesh())) for model in models)
    found = plan_transfer(five, two, outline("ABCDE"), outline("AC"))
    assert (found.fresh, found.left_over) == ("the outputs of B, D, E", "")
    assert found.paths.keys() == flatten_dict(five, sep="/").keys()


def changed(**groups: dict) -> Outline:
    config = get_config()
    config.model.shortcut_seconds = 4.0
    for group, values in groups.items():
        config[group].update(values)
    return Outline.from_config(*(config[part].to_dict() for part in ("model", "data", "clip")))


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
