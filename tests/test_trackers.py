"""What goes to TensorBoard and to Weights & Biases, and what happens when a run goes on."""

import sys
import types
from pathlib import Path

import jax
import pytest
from helpers.runs import lines, with_scores
from helpers.tiny import tiny_config, write_data
from tensorboardX.proto.event_pb2 import Event, SessionLog

from astra_jax import runs
from astra_jax.errors import UserError
from astra_jax.runs.folder import RunFolder
from astra_jax.training.trackers import TrackedRun, Trackers, TrackersConfig

LINE = {
    "epoch": 2,
    "step": 6,
    "loss": 1.5,
    "learning_rate": 0.25,
    "skipped_steps": 1,
    "validation": {"tight": 0.5, "loose": 0.75},
}


def open_trackers(
    workdir: Path, tensorboard: bool = False, project: str | None = None, step: int = 0
) -> Trackers:
    """As a training in this folder opens them."""
    folder = RunFolder(workdir)
    run = TrackedRun(
        name=workdir.name,
        config={"training": {"epochs": 50}},
        tensorboard_folder=folder.tensorboard,
        wandb_folder=folder.path,
        run_id_file=folder.tracker_id_path,
    )
    return Trackers(TrackersConfig(tensorboard, project), run, step)


def read_events(path: Path) -> list[Event]:
    """The records of a file: a length of 8 bytes, 4 of checksum, the event, 4 of checksum."""
    content, events = path.read_bytes(), []
    while content:
        size = int.from_bytes(content[:8], "little")
        events.append(Event.FromString(content[12 : 12 + size]))
        content = content[16 + size :]
    return events


def shown(workdir: Path) -> dict[int, dict[str, float]]:
    """What TensorBoard shows: a start drops earlier events of its step and later."""
    values: dict[int, dict[str, float]] = {}
    files = sorted((workdir / "tensorboard").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    for event in (event for path in files for event in read_events(path)):
        if event.session_log.status == SessionLog.START:
            values = {step: old for step, old in values.items() if step < event.step}
        for value in event.summary.value:
            values.setdefault(event.step, {})[value.tag] = value.simple_value
    return values


class FakeWandb(types.ModuleType):
    """Remembers what it is told."""

    def __init__(self):
        super().__init__("wandb")
        self.starts, self.logged, self.finished = [], [], 0

    def init(self, **arguments):
        self.starts.append(arguments)
        return self

    def log(self, values, step):
        self.logged.append((step, values))

    def finish(self):
        self.finished += 1


@pytest.fixture
def wandb(monkeypatch):
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


def test_tensorboard_gets_every_number_of_a_line(tmp_path):
    trackers = open_trackers(tmp_path, tensorboard=True)
    trackers.log(6, LINE)
    trackers.close()
    assert shown(tmp_path) == {
        6: {
            "epoch": 2,
            "loss": 1.5,
            "learning_rate": 0.25,
            "skipped_steps": 1,
            "validation/tight": 0.5,
            "validation/loose": 0.75,
        }
    }


def test_what_was_shown_after_the_checkpoint_is_replaced(tmp_path):
    first = open_trackers(tmp_path, tensorboard=True)
    for step, loss in ((3, 9.0), (6, 8.0), (9, 7.0)):
        first.log(step, {"loss": loss})
    first.close()
    second = open_trackers(tmp_path, tensorboard=True, step=6)
    second.log(9, {"loss": 5.0})
    second.close()
    losses = {step: values["loss"] for step, values in shown(tmp_path).items()}
    assert losses == {3: 9.0, 6: 8.0, 9: 5.0}


def test_wandb_gets_the_config_and_the_same_numbers(tmp_path, wandb):
    trackers = open_trackers(tmp_path / "mine", project="football")
    trackers.log(6, LINE)
    trackers.close()
    (start,) = wandb.starts
    assert (start["project"], start["name"]) == ("football", "mine")
    assert start["dir"] == str(tmp_path / "mine") and start["config"]["training"]["epochs"] == 50
    ((step, values),) = wandb.logged
    assert step == 6 and values["validation/loose"] == 0.75 and "step" not in values
    assert wandb.finished == 1


def test_a_resumed_run_is_the_same_one_on_wandb(tmp_path, wandb):
    for folder in ("one", "one", "two"):
        open_trackers(tmp_path / folder, project="football").close()
    first, again, other = wandb.starts
    assert first["id"] == again["id"] != other["id"]
    assert {start["resume"] for start in wandb.starts} == {"allow"}


def test_a_wandb_that_does_not_start_is_one_line(tmp_path, wandb, monkeypatch):
    def no_key(**arguments):
        raise RuntimeError("api_key not configured\n(no-tty)")

    monkeypatch.setattr(wandb, "init", no_key)
    with pytest.raises(UserError, match="api_key.*WANDB_MODE=offline") as error:
        open_trackers(tmp_path, project="football")
    assert "\n" not in str(error.value)


def test_only_the_first_process_reports(tmp_path, wandb, monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    trackers = open_trackers(tmp_path, tensorboard=True, project="football")
    trackers.log(6, LINE)
    trackers.close()
    assert list(tmp_path.iterdir()) == [] and wandb.starts == []


def test_nothing_is_reported_unless_asked(tmp_path, wandb):
    trackers = open_trackers(tmp_path)
    trackers.log(6, LINE)
    trackers.close()
    assert list(tmp_path.iterdir()) == [] and wandb.starts == []


@pytest.mark.parametrize(
    ("key", "package", "value"),
    [("tensorboard", "tensorboardX", True), ("wandb_project", "wandb", "football")],
)
def test_a_package_that_is_missing_is_named_before_anything_is_written(
    tmp_path, monkeypatch, key, package, value
):
    monkeypatch.setitem(sys.modules, package, None)
    made = tiny_config(tmp_path)
    made.logging[key] = value
    extra = key.removesuffix("_project")
    words = rf"config\.logging\.{key}: .*pip install 'astra-jax\[{extra}\]'"
    with pytest.raises(UserError, match=words) as error:
        runs.train(made, tmp_path / "run")
    assert "\n" not in str(error.value) and list(tmp_path.iterdir()) == []
    TrackersConfig().check_installed()


def test_a_run_that_goes_on_is_shown_as_its_metrics(tmp_path, wandb):
    write_data(tmp_path / "data")
    workdir = tmp_path / "run"

    def train(scores, **logging):
        made = tiny_config(tmp_path / "data")
        made.logging.update(**logging)
        return runs.train(made, workdir, components=with_scores(scores))

    with pytest.raises(StopIteration):  # in the second epoch's validation
        train([0.3], tensorboard=True)
    # Who is told may change in the middle.
    assert train([0.2, 0.4], tensorboard=True, wandb_project="football")["epochs"] == 3
    found = shown(workdir)
    assert list(found) == [3, 6, 9]
    for line in lines(workdir / "metrics.jsonl"):
        values = found[line["step"]]
        assert values["loss"] == pytest.approx(line["loss"], rel=1e-6)
        assert values["learning_rate"] == pytest.approx(line["learning_rate"], rel=1e-6, abs=1e-9)
        assert values["validation/tight"] == pytest.approx(line["validation"]["tight"])
    assert [step for step, _ in wandb.logged] == [6, 9] and wandb.finished == 1
    (start,) = wandb.starts
    assert (start["name"], start["dir"]) == ("run", str(workdir))
    assert start["config"]["training"]["epochs"] == 3
