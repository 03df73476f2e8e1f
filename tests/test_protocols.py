"""Protocol P2: training on all labelled matches, predictions for a challenge without labels."""

import json
import shutil
import zipfile
from pathlib import Path

from helpers.runs import LINEAR

from astra_jax.cli.main import main
from astra_jax.config.load import load_config
from astra_jax.data.simulation.writer import SimulationSpec, write_matches

CONFIG = f"{Path(__file__).parents[1] / 'configs' / 'challenge.py'}:demo"
SMALL = {
    "simulation.train_matches": 1,
    "simulation.valid_matches": 1,
    "simulation.test_matches": 2,
    "simulation.half_seconds": 60,
    "training.batch_size": 8,
    "training.epochs": 2,
    "optimizer.warmup_epochs": 0,
}
CHALLENGE = [f"simulated/test/match_00{number}/results_spotting.json" for number in (0, 1)]


def test_the_challenge_is_predicted_by_the_last_epoch_without_its_labels(tmp_path, capsys):
    root, workdir, out = tmp_path / "matches", tmp_path / "run", tmp_path / "out"
    overrides = [f"--config.{key}={value}" for key, value in SMALL.items()]
    overrides.append(f"--config.data.root={root}")
    config = load_config(CONFIG, overrides)
    write_matches(root, SimulationSpec.from_config(config.simulation.to_dict()))
    for labels in (root / "simulated" / "test").rglob("*.json"):  # and what truly happened
        labels.unlink()

    # Training does without any file of the challenge's matches.
    shutil.move(root / "simulated" / "test", tmp_path / "kept")
    training = ["train", "--config", CONFIG, "--workdir", str(workdir), *overrides]
    assert main(training, LINEAR) == 0
    shutil.move(tmp_path / "kept", root / "simulated" / "test")
    assert "2 match(es)" in capsys.readouterr().err  # train and valid
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [line["validation"] for line in lines] == [{}, {}]
    assert json.loads((workdir / "summary.json").read_text())["best_epoch"] == 2

    evaluation = ["evaluate", "--workdir", str(workdir), "--split", "challenge"]
    assert main([*evaluation, "--out", str(out)], LINEAR) == 0
    assert "nothing is scored" in capsys.readouterr().err
    assert {path.name for path in out.iterdir()} == {"results", "results.zip", "provenance.json"}
    assert json.loads((out / "provenance.json").read_text())["step"] == lines[-1]["step"]
    with zipfile.ZipFile(out / "results.zip") as archive:
        assert archive.namelist() == CHALLENGE
        assert all(json.loads(archive.read(name))["predictions"] for name in CHALLENGE)
