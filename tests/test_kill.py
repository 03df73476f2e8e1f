"""A run that is killed again and again ends, to the bit, as the one that was left alone."""

import json
import shutil
from pathlib import Path

import pytest
from helpers.kills import Aim, Hit, WatchedRun, arrays_of, end_faults, history_faults
from helpers.processes import flags
from helpers.tiny import write_data

# Everything that draws numbers, and checkpoints inside the epochs of three steps.
EVERYTHING_RANDOM = (
    "--config.mixup.kind=balanced",
    "--config.model.dropout=0.1",
    "--config.model.embedding_dropout=0.2",
    "--config.model.head_dropout=0.2",
    "--config.model.temporal_dropout=0.5",
    "--config.model.temporal_switch=0.3",
    "--config.training.checkpoint_every_steps=2",
    "--config.training.log_every_steps=2",
    "--config.training.epochs=2",
)


@pytest.fixture(scope="module", params=["noisy", pytest.param("astra", marks=pytest.mark.slow)])
def model(request: pytest.FixtureRequest) -> str:
    """What the runs train. The stand-in draws numbers as ASTRA does; processes start sooner."""
    return request.param


@pytest.fixture(scope="module")
def runs(model, tmp_path_factory, compiled_folder) -> tuple[WatchedRun, WatchedRun, list[Hit]]:
    """One left alone, one killed three times and then finished; where the kills hit."""
    folder = tmp_path_factory.mktemp("kills")
    config = ["--config", str(Path(__file__).with_name("helpers") / "tiny.py")]
    data = f"--config.data.root={write_data(folder / 'data')}"
    arguments = ["train", *config, data, *EVERYTHING_RANDOM]
    whole, killed = (
        WatchedRun(arguments, folder / name, compiled_folder, model, XLA_FLAGS=flags(devices=2))
        for name in ("whole", "killed")
    )
    whole.finish()
    # Of six steps, three an epoch, with checkpoints at 2, 3, 4 and 6, the first best one at 3.
    aims = (
        Aim("renames", step=2, kind="latest", hold=True),
        Aim("renames", step=3, kind="best", hold=True),
        Aim("validation begins", step=6, hold=True),
    )
    hits = [killed.kill_at(aim) for aim in aims]
    killed.finish()
    return whole, killed, hits


def test_kills_hit_what_they_are_aimed_at(runs):
    _, killed, hits = runs
    # Writes go on in the background: the loop may have come to the validation.
    assert any("latest/2" in left for left in hits[0].left)
    assert any("best/3" in left for left in hits[1].left)
    assert hits[2].phase == "validation"
    assert hits[2].step == 5 and killed.events()[-1]["event"] == "ends"


def test_a_run_killed_again_and_again_ends_to_the_bit_as_the_one_left_alone(runs):
    whole, killed, _ = runs
    assert end_faults(killed.workdir, whole.workdir) == []
    arrays = arrays_of(whole.workdir / "checkpoints" / "latest" / "6" / "state")
    # Two layers' weights and biases, the three moments of all of them; key, sums and counts.
    assert len(arrays) >= 4 + 3 + 5 and any("nu_max" in name for name in arrays)
    # A model that dropout and mixing passed by would make the comparison idle.
    lines = (whole.workdir / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 2 + 3 and json.loads(lines[0])["loss"] > 0


def test_no_step_is_twice_or_missing_and_each_has_its_batch(runs):
    whole, killed, _ = runs
    assert history_faults(killed.events(), whole.events()) == []
    steps = [event["step"] for event in whole.events() if event["event"] == "step"]
    assert steps == list(range(6))
    resumed = [event["step"] for event in killed.events() if event["event"] == "resumes"]
    assert len(resumed) == 4 and resumed[-1] > 0


def test_provenance_tells_of_every_start(runs):
    _, killed, _ = runs
    starts = json.loads((killed.workdir / "provenance.json").read_text())["starts"]
    resumed = [event["step"] for event in killed.events() if event["event"] == "resumes"]
    assert [start["step"] for start in starts] == resumed
    assert len({start["data"] for start in starts}) == 1


def test_a_step_twice_or_missing_or_on_another_batch_is_noticed():
    def of(*steps: int, start: int = 0) -> list[dict]:
        taken = [{"event": "step", "step": step, "batch": str(step)} for step in steps]
        return [{"event": "resumes", "step": start}, *taken]

    whole = of(0, 1, 2, 3)
    assert history_faults([*of(0, 1, 2), *of(1, 2, 3, start=1)], whole) == []
    assert history_faults(of(0, 1, 1, 2, 3), whole) == ["step 1 follows 1"]
    assert history_faults(of(0, 2, 3), whole) == ["step 2 follows 0"]
    assert history_faults([*of(0, 1), *of(3, start=3)], whole) == [
        "goes on at step 3, but only 2 were taken"
    ]
    assert history_faults(of(0, 1, 2), whole) == ["3 steps, not 4"]
    other = [*of(0, 1), {"event": "step", "step": 2, "batch": "0"}, *of(3, start=3)]
    assert history_faults(other, whole) == ["step 2: another batch"]


def test_ends_that_differ_are_noticed(runs, tmp_path):
    whole, _, _ = runs
    other = tmp_path / "other"
    shutil.copytree(whole.workdir, other)
    assert end_faults(other, whole.workdir) == []
    lines = (other / "metrics.jsonl").read_text().splitlines(keepends=True)
    (other / "metrics.jsonl").write_text(lines[0])
    checkpoints = other / "checkpoints" / "latest"
    shutil.rmtree(checkpoints / "6")
    (checkpoints / "4").rename(checkpoints / "6")
    faults = end_faults(other, whole.workdir)
    assert {"metrics.jsonl differs", "checkpoints/latest/6/progress/metadata differs"} <= {*faults}
    arrays = arrays_of(whole.workdir / "checkpoints" / "latest" / "6" / "state")
    assert sum(fault.startswith("latest: ") for fault in faults) > len(arrays) / 2
