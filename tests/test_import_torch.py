"""Published checkpoints: the run's folder that becomes of one, and what it predicts."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers.components import on_one_device
from helpers.models import settings_of
from helpers.torch_files import Refused, golden, published, save, state_of

from astra_jax.cli.main import main
from astra_jax.config import paper
from astra_jax.config.classes import CLASSES
from astra_jax.config.saved import differences, from_json
from astra_jax.errors import UserError
from astra_jax.model import Predictions, VGGishConfig
from astra_jax.runs.components import Components
from astra_jax.runs.folder import RunFolder
from astra_jax.runs.import_torch import config_of
from astra_jax.runs.listing import read_run
from astra_jax.spotting.programs import Programs
from astra_jax.training.checkpoints import Checkpoints

MATCH = "league/season/A - B"


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Refused:
    return Refused(tmp_path, capsys)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return save(tmp_path / "model.pth.tar", state_of(golden("forward_visual")))


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """The recorded model with audio, imported from a file with the mixup's queue in it."""
    folder, recorded = tmp_path_factory.mktemp("imported"), golden("forward_audio")
    queue = {"labelQ": torch.zeros(18, 2, 20, 18), "featBQ": torch.zeros(2)}
    file = save(folder / "model.pth.tar", state_of(recorded) | queue)
    workdir = folder / "runs" / "published"
    assert main(["import-torch", str(file), str(workdir)]) == 0
    return SimpleNamespace(recorded=recorded, workdir=workdir, folder=folder)


def test_an_imported_checkpoint_predicts_matches_as_the_published_model_did(imported):
    root, recorded = imported.folder / "data", imported.recorded
    (root / MATCH).mkdir(parents=True)
    (root / "list.txt").write_text(f"{MATCH}\n")
    for half in (1, 2):
        rows, power = recorded["features"][half - 1], recorded["mel_power"][half - 1]
        np.save(root / MATCH / f"{half}_baidu_soccer_embeddings.npy", rows)
        np.save(root / MATCH / f"audio{half}.npy", np.ascontiguousarray(power.T))
    seen: list[Predictions] = []

    class Watched(Programs):
        def predict(self, *args: Any) -> Predictions:
            seen.append(super().predict(*args))
            return seen[-1]

    components = on_one_device(Components(make_programs=Watched))
    arguments = ["--workdir", str(imported.workdir), "--split", "list.txt"]
    out = imported.folder / "out"
    command = ["evaluate", *arguments, "--out", str(out), f"--config.data.root={root}"]
    assert main(command, components) == 0
    for half, predictions in enumerate(seen):  # the first window is the recorded clip
        for ours, theirs in (
            (predictions.probabilities, "probs"),
            (predictions.displacement_mean, "displacement_mean"),
            (predictions.displacement_log_variance, "displacement_logvar"),
        ):
            np.testing.assert_allclose(ours[0], recorded[theirs][half], atol=1e-4)
    assert len(seen) == 2 and (out / "results.zip").is_file()


def test_an_imported_folder_says_where_it_is_from(imported):
    told = json.loads((imported.workdir / "provenance.json").read_text())["imported"]
    assert told["file"] == "model.pth.tar" and len(told["sha256"]) == 64
    assert (told["heads"], told["hierarchical"]) == (8, True)
    assert told["packages"]["torch"].startswith("2.")
    assert (imported.workdir / "normalization.json").read_text() == "[null]\n"
    assert read_run(RunFolder(imported.workdir), "published").state == "imported"
    assert [path.name for path in imported.workdir.parent.iterdir()] == ["published"]


def test_imported_weights_are_not_trained_over(imported, capsys):
    config = str(Path(__file__).parent / "helpers" / "tiny.py")
    command = ["train", "--config", config, f"--config.data.root={imported.folder}"]
    assert main([*command, "--workdir", str(imported.workdir)]) == 2
    err = capsys.readouterr().err
    assert f"--config.init_from={imported.workdir} and another --workdir" in err
    assert err.count("\n") == 1


def test_the_published_model_has_the_papers_config_in_float32():
    config = config_of(published(), CLASSES)
    assert differences(config, paper()) == ["model.dtype"]
    audio = settings_of(config).model.audio
    assert (audio.frames, audio.segments) == (5000, 52)


def test_audio_of_another_rate_is_refused():
    with pytest.raises(UserError, match="51 segments of audio, where 52 fit"):
        config_of(dataclasses.replace(published(), audio=VGGishConfig(frames=51 * 96)), CLASSES)


def test_a_model_without_audio_uncertainty_and_augmentation(tmp_path):
    state = state_of(golden("train_plain"))
    del state["temporal_dropB.embedding"]
    file = save(tmp_path / "model.pth.tar", state)
    options = ["--heads", "4", "--no-hierarchical"]
    assert main(["import-torch", str(file), str(tmp_path / "out"), *options]) == 0
    config = from_json(tmp_path / "out" / "config.json")
    model = config.model
    assert config.data.audio is None and config.clip.seconds == 10
    assert not model.uncertainty and not model.hierarchical and model.heads == 4
    assert (model.temporal_dropout, model.temporal_switch) == (0, 0)


def test_other_classes_have_the_windows_of_their_names_and_else_the_usual_one(refused, tmp_path):
    state = state_of(golden("forward_visual"))
    for part in ("clas_head.head.4", "displ_head.mean_head.1", "displ_head.logvar_head.1"):
        state |= {f"{part}.{kind}": state[f"{part}.{kind}"][:3] for kind in ("weight", "bias")}
    file = save(tmp_path / "model.pth.tar", state)
    refused(file, ("of 2 classes, but SoccerNet's are 17", "--classes"))
    refused(file, ("of 2 classes, but --classes names are 1",), "--classes", "Goal")
    refused(file, ("every class once",), "--classes", "Goal,Goal")
    assert main(["import-torch", str(file), str(tmp_path / "out"), "--classes", "Goal, Shot"]) == 0
    config = from_json(tmp_path / "out" / "config.json")
    assert config.data.classes == ("Goal", "Shot")
    assert config.inference.suppression.windows_seconds == (9, 8)


def test_a_folder_with_something_in_it_is_refused(refused, checkpoint, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "file").touch()
    refused(checkpoint, (str(tmp_path / "out"), "nothing is written over"))


def test_nothing_is_left_where_the_disk_is_full(refused, checkpoint, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Checkpoints, "save_best", full)
    refused(checkpoint, ("out: No space left on device",))
