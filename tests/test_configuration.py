"""Config files, overrides and the config that a run keeps."""

from pathlib import Path

import pytest

from astra_jax.config.defaults import paper
from astra_jax.config.load import find_config, load_config, override
from astra_jax.config.saved import differences, from_json, to_json
from astra_jax.errors import UserError

CONFIGS = Path(__file__).parents[1] / "configs"


@pytest.mark.parametrize(
    "name", ["astra.py", "astra.py:visual", "astra_small_data.py", "demo.py", "commentary.py"]
)
def test_a_run_keeps_its_config_as_it_was(name, tmp_path):
    config = load_config(str(CONFIGS / name))
    (tmp_path / "config.json").write_text(to_json(config), encoding="utf-8")
    assert differences(config, from_json(tmp_path / "config.json")) == []


def test_overrides_reach_nested_values_of_every_type():
    config = load_config(
        str(CONFIGS / "astra.py"),
        [
            "--config.data.root=/data",
            "--config.training.batch_size=16",
            "--config.model.dtype=bfloat16",
            "--config.model.class_prior=0.05",
            "--config.clip.stride_seconds=12.5",
            "--config.optimizer.amsgrad=False",
        ],
    )
    assert config.data.root == "/data" and config.training.batch_size == 16
    assert config.model.dtype == "bfloat16" and config.model.class_prior == 0.05
    assert config.clip.stride_seconds == 12.5 and config.optimizer.amsgrad is False


def test_a_kept_config_takes_overrides(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(to_json(paper()), encoding="utf-8")
    moved = override(from_json(path), ["--config.data.root=/elsewhere"])
    assert differences(paper(), moved) == ["data.root"]


def test_class_weights_are_kept_and_come_from_the_command_line(tmp_path):
    config = load_config(
        str(CONFIGS / "demo.py"), ["--config.loss.class_weights=(1,2.5,0,1,1,1,1,1)"]
    )
    path = tmp_path / "config.json"
    path.write_text(to_json(config), encoding="utf-8")
    kept = from_json(path)
    assert kept.loss.class_weights == (1, 2.5, 0, 1, 1, 1, 1, 1)
    assert differences(config, kept) == []


def test_keys_that_a_kept_config_lacks_have_their_defaults(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{"seed": 7, "training": {"epochs": 3}}', encoding="utf-8")
    config = from_json(path)
    assert (config.seed, config.training.epochs, config.training.batch_size) == (7, 3, 8)


@pytest.mark.parametrize(
    ("argument", "named"),
    [
        ("--config.data.rot=x", "rot"),
        ("--config.nothing=1", "nothing"),
        ("--config.training.batch_size=many", "batch_size"),
        ("--config.data.sources[5].pattern=x", "index out of range"),
        ("--batch_size=3", "--batch_size=3"),
        ("stray", "stray"),
    ],
)
def test_an_override_that_fits_nothing_is_named_in_one_line(argument, named):
    with pytest.raises(UserError, match=named) as error:
        load_config(str(CONFIGS / "demo.py"), [argument])
    assert "\n" not in str(error.value)


def test_a_missing_config_file_is_named():
    with pytest.raises(UserError, match="nowhere.py"):
        load_config("nowhere.py")


def test_a_shipped_config_is_read_where_the_folder_has_none_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Path(find_config("configs/astra.py")) == CONFIGS / "astra.py"
    assert load_config("configs/astra.py:visual").data.audio is None
    own = tmp_path / "configs" / "astra.py"
    own.parent.mkdir()
    own.write_text("from astra_jax.defaults import paper as get_config\n", encoding="utf-8")
    assert find_config("configs/astra.py") == "configs/astra.py"
    assert load_config("configs/astra.py").data.audio is not None


@pytest.mark.parametrize("name", ["astra.py", "configs/none.py", "other/astra.py", "configs"])
def test_no_other_name_stands_for_a_shipped_config(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=name):
        find_config(name)


def test_a_fault_inside_a_config_file_is_its_last_line(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("def get_config():\n    return undefined_name\n", encoding="utf-8")
    with pytest.raises(UserError, match="undefined_name") as error:
        load_config(str(path))
    assert "\n" not in str(error.value) and "Traceback" not in str(error.value)


def test_an_unknown_variant_of_the_papers_config_is_named():
    with pytest.raises(UserError, match="full and visual"):
        load_config(str(CONFIGS / "astra.py:blind"))


@pytest.mark.parametrize("content", ["{", "[1]", '{"training": 3}', "[" * 100_000, "9" * 5000])
def test_a_broken_kept_config_is_one_line(content, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=r"config\.json"):
        from_json(path)
