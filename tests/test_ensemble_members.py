"""Which runs go together in an ensemble, and what is set for one of them or for all."""

from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.ensemble import full_config, visual_config
from helpers.errors import check_line
from helpers.matches import FAST, WIDE
from helpers.tiny import TRAIN, VALID, write_data
from ml_collections import ConfigDict

from astra_jax import runs
from astra_jax.cli.evaluate import split_workdirs
from astra_jax.cli.main import main
from astra_jax.config.saved import to_json
from astra_jax.errors import UserError
from astra_jax.runs.components import USUAL
from astra_jax.runs.members import Member, index_members, matches_of_all, open_members

Change = Callable[[ConfigDict], object]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


def configs_in(folder: Path, root: Path, change: Change) -> list[Path]:
    """Two folders, the second with another config; nothing but configs is read before checks."""
    first, second = full_config(root), visual_config(root)
    change(second)
    for name, config in (("a", first), ("b", second)):
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(to_json(config))
    return [folder / "a", folder / "b"]


def opened(workdirs: list[Path], *overrides: str) -> list[Member]:
    return open_members(workdirs, overrides, USUAL)


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
        (lambda c: c.data.update(periods=(1,)), ("data.periods is [1, 2]", "data.periods=VALUE")),
        (lambda c: c.evaluation.update(frame_rate=25), ("--config.evaluation.frame_rate=VALUE",)),
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
    both = opened(workdirs, "--config.inference.threshold=0.2")
    assert [member.settings.inference.threshold for member in both] == [0.2, 0.2]
    assert matches_of_all(both, "test") == (VALID,)


def test_what_counts_can_be_set_for_all(root, tmp_path):
    def change(config: ConfigDict) -> None:
        config.data.periods = (2,)
        config.evaluation.frame_rate = 25

    both = opened(
        configs_in(tmp_path, root, change),
        "--config.data.periods=(1,)",
        "--config.evaluation.frame_rate=10",
    )
    assert [(m.settings.data.periods, m.settings.frame_rate) for m in both] == [((1,), 10)] * 2


def test_a_half_that_one_member_has_no_files_of_is_named(tmp_path):
    """Of the other alone it would be a prediction by half the ensemble, or by nobody."""
    root = write_data(tmp_path / "data")

    for name, number in (("wide", 0), ("fast", 1)):
        config = visual_config(root)
        with config.ignore_type():
            config.data.sources = full_config(root).data.sources[number : number + 1]
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(to_json(config))
    wide, fast = opened([tmp_path / "wide", tmp_path / "fast"])
    (root / VALID / FAST.format(half=2)).unlink()
    for members in ([wide, fast], [fast, wide], [fast, fast, wide]):
        with pytest.raises(UserError) as error:
            index_members(members, (VALID,))
        where = f"for {wide.folder} and none for {fast.folder} (1 such half(s))"
        check_line(error, f"{VALID}: half 2 has files", where, "data.periods")
    (root / VALID / WIDE.format(half=2)).unlink()
    of_members = index_members([wide, fast], (VALID,))
    assert [[half.half for half in halves] for halves in of_members] == [[1], [1]]


def test_a_key_that_one_member_lacks_is_set_for_the_others(root, tmp_path):
    workdirs = configs_in(tmp_path, root, lambda c: c.data.update(workers=1))
    floor, source = (
        "--config.data.audio.floor_db=-70.0",
        "--config.data.sources[1].rows_per_second=4.0",
    )
    members = opened(workdirs, floor, source, "--config.data.workers=2")
    first, second = (member.settings.config for member in members)
    assert (first.data.audio.floor_db, second.data.audio) == (-70.0, None)
    assert first.data.sources[1]["rows_per_second"] == 4 and len(second.data.sources) == 1
    assert first.data.workers == second.data.workers == 2
    with pytest.raises(UserError, match="config has no key flor_db"):
        opened(workdirs, "--config.data.audio.flor_db=-70.0")


def test_folders_are_told_apart_by_commas(tmp_path):
    assert split_workdirs("runs/a,runs/b") == [Path("runs/a"), Path("runs/b")]
    own = tmp_path / "b=1,c=2"
    own.mkdir()
    assert split_workdirs(str(own)) == own
    with pytest.raises(UserError, match="a name is empty"):
        split_workdirs("runs/a,,runs/b")
    with pytest.raises(UserError, match="names no folder"):
        runs.evaluate([], "test", tmp_path / "out")
