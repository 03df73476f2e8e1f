"""The package as it is installed from a wheel, used far from the checkout."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest
from helpers.processes import environment, flags
from helpers.tiny import TRAIN, VALID, write_data

HERE = Path(__file__).parent
CHECKOUT = HERE.parent
SHIPPED = (
    *("ablations", "astra", "astra_small_data", "challenge", "commentary", "demo", "ensemble"),
)


def run(*command: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess:
    environment = {key: os.environ[key] for key in os.environ if key != "PYTHONPATH"} | variables
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the checkout: setuptools leaves its scaffolding where it builds."""
    folder = tmp_path_factory.mktemp("wheel")
    litter = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("astra_jax", "configs", "tests", "benchmarks"):
        shutil.copytree(CHECKOUT / name, folder / "source" / name, ignore=litter)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE", "train.py", "evaluate.py"):
        shutil.copy(CHECKOUT / name, folder / "source")
    build = ("wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", "wheels", "./source")
    run(sys.executable, "-m", "pip", *build, cwd=folder)
    (path,) = (folder / "wheels").iterdir()
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which the wheel was installed; what it depends on is the suite's own."""
    folder = tmp_path_factory.mktemp("installed")
    options = ("--no-deps", "--no-index", "--target", str(folder))
    run(sys.executable, "-m", "pip", "install", *options, str(wheel), cwd=folder)
    return folder


def test_a_wheel_holds_the_package_its_data_the_configs_and_the_licence_alone(wheel):
    with ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (licence,) = [name for name in names if name.endswith("/licenses/LICENSE")]
        assert archive.read(licence) == (CHECKOUT / "LICENSE").read_bytes()
    files = (CHECKOUT / "astra_jax").rglob("*.*")
    expected = {
        file.relative_to(CHECKOUT).as_posix()
        for file in files
        if file.suffix in {".py", ".json", ".txt"}
    }
    expected |= {f"astra_jax/configs/{name}.py" for name in SHIPPED}
    about = licence.partition("/")[0]
    assert {name for name in names if not name.startswith(f"{about}/")} == expected
    assert about.endswith(".dist-info")


def test_an_installed_package_reads_its_own_data_and_configs(installed, tmp_path):
    code = f"""
import json, astra_jax
from astra_jax.config.load import find_config, load_config
from astra_jax.config.simulated import simulated_matches
from astra_jax.data.splits import load_split
files = [find_config(f"configs/{{name}}.py") for name in {SHIPPED}]
dims = [load_config(f"configs/{{name}}.py").model.dim for name in {SHIPPED}]
simulated = simulated_matches()
splits = [len(load_split(name, given_by="")) for name in ("train", "valid", "test", "challenge")]
print(json.dumps([astra_jax.__file__, files, dims, splits]))
"""
    said = run(sys.executable, "-c", code, cwd=tmp_path, PYTHONPATH=str(installed)).stdout
    file, configs, dims, splits = json.loads(said)
    assert file == str(installed / "astra_jax" / "__init__.py")
    assert configs == [str(installed / "astra_jax" / "configs" / f"{name}.py") for name in SHIPPED]
    assert dims == [512, 512, 128, 512, 64, 64, 512] and splits == [300, 100, 100, 50]


def test_the_installed_command_trains_evaluates_and_scores(installed, tmp_path, compiled_folder):
    data = write_data(tmp_path / "data")
    # A user's own config, beside whose own modules.
    (tmp_path / "helpers").mkdir()
    for name in ("tiny.py", "matches.py"):
        shutil.copy(HERE / "helpers" / name, tmp_path / "helpers")
    variables = environment(
        compiled_folder,
        PYTHONPATH=os.pathsep.join([str(installed), str(tmp_path)]),
        XLA_FLAGS=flags(devices=1),
    )

    def astra(*arguments: str) -> subprocess.CompletedProcess:
        command = str(installed / "bin" / "astra")
        return run(sys.executable, command, *arguments, cwd=tmp_path, **variables)

    assert "train" in astra("--help").stdout
    # The programs of test_command_line.py, so that they needn't be compiled again.
    config = ("--config", "helpers/tiny.py", f"--config.data.root={data}")
    astra("train", *config, "--workdir", "runs/tiny")
    evaluated = astra("evaluate", "--workdir", "runs/tiny", "--split", "test", "--out", "out")
    assert "Average-mAP" in evaluated.stdout
    scores = ("--predictions", "out/results.zip", "--matches", "data/valid.txt")
    astra("score", "--labels", "data", *scores, "--metric", "tight", "--json", "again.json")
    again = json.loads((tmp_path / "again.json").read_text())
    assert again["tight"] == json.loads((tmp_path / "out" / "metrics.json").read_text())["tight"]
    assert (tmp_path / "out" / "results" / VALID / "results_spotting.json").is_file()
    assert not (tmp_path / "out" / "results" / TRAIN).exists()
