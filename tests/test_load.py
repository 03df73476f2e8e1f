"""Config files and overrides: what is read, what is refused, and that nobody changes the result."""

from pathlib import Path

import pytest
from helpers.errors import check_line

from astra_jax.config.defaults import paper
from astra_jax.config.load import find_config, freeze, load_config
from astra_jax.errors import UserError
from astra_jax.runs.folder import RunFolder
from astra_jax.runs.settings import resolve

CONFIGS = Path(__file__).parents[1] / "configs"


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
    own.write_text("from astra_jax.config import paper as get_config\n", encoding="utf-8")
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


@pytest.mark.parametrize(
    ("code", "place"),
    [
        ("from astra_jax.defaults import paper", "astra_jax.config"),
        ("import astra_jax.defaults", "astra_jax.config"),
        ("from astra_jax.variants import member", "astra_jax.config.recipes"),
        ("from astra_jax.data.clock import source", "clock_source of astra_jax.config"),
        ("from astra_jax.data import clock; clock.source(0.5)", "clock_source of astra_jax.config"),
    ],
)
def test_a_config_file_of_an_earlier_version_is_told_what_its_imports_are_now(
    code, place, tmp_path
):
    path = tmp_path / "mine.py"
    path.write_text(f"import math\n\n{code}\n", encoding="utf-8")
    with pytest.raises(UserError) as error:
        load_config(str(path))
    check_line(error, f"{path}, line 3: ", f", it is {place} now; mend the config file")


def test_another_missing_import_is_not_said_to_have_moved(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("from astra_jax.config import source\n", encoding="utf-8")
    with pytest.raises(UserError) as error:
        load_config(str(path))
    check_line(error, str(path), "cannot import name 'source'")
    assert " now" not in str(error.value)


def test_a_resolved_config_cannot_be_changed():
    frozen = freeze(paper())
    with pytest.raises(AttributeError):
        frozen.seed = 2
    with pytest.raises(AttributeError):
        frozen.model.audio.hidden = 1
    with pytest.raises(AttributeError):
        frozen.data.splits["test"] = "mine.txt"
    with pytest.raises(TypeError):
        frozen.data.sources[0]["widths"] = (1,)


def test_a_resolved_config_does_not_follow_the_one_that_it_was():
    config = paper()
    frozen = freeze(config)
    config.seed, config.model.audio.hidden = 2, 1
    config.data.sources[0]["rows_per_second"] = 3.0
    assert (frozen.seed, frozen.model.audio.hidden) == (1, 4096)
    assert frozen.data.sources[0]["rows_per_second"] == 1.0


def test_resolving_a_config_for_one_folder_leaves_it_as_it_was_for_the_next():
    config = load_config("configs/demo.py")
    roots = [resolve(config, RunFolder(Path(name))).data.root for name in "ab"]
    assert [Path(root).parts[-2:] for root in roots] == [("a", "matches"), ("b", "matches")]
    assert config.data.root is None
