"""What the README promises, and the tables of options and errors in docs/, is there."""

import re
from pathlib import Path

import pytest

from astra_jax.config.check import check
from astra_jax.config.defaults import paper
from astra_jax.config.load import load_config
from astra_jax.config.saved import flatten
from astra_jax.data.sources import DataSpec
from astra_jax.data.targets import ClipConfig
from astra_jax.model import ModelConfig
from astra_jax.spotting.inference import InferenceConfig

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ERRORS = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
OPTIONS = (ROOT / "docs" / "options.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    return README.partition(f"## {title}\n")[2].partition("\n## ")[0]


def messages() -> list[str]:
    """The phrases in the first column of the table of errors."""
    rows = [line for line in ERRORS.splitlines() if line[:3] == "| `"]
    return [phrase for row in rows for phrase in re.findall("`([^`]+)`", row.split(" | ")[0])]


@pytest.fixture(scope="module")
def source() -> str:
    """The package's text, strings that go on in the next line joined."""
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "astra_jax").rglob("*.py")]
    return re.sub(r'"\s*\n\s*f?"', "", "\n".join(texts))


@pytest.mark.parametrize("phrase", messages())
def test_an_error_in_the_docs_is_one_that_the_package_raises(phrase, source):
    # Three dots and N stand for what differs: in the source, something in braces.
    pattern = re.sub(r"\\\.\\\.\\\.|\bN\b", r"[^\\n]*", re.escape(phrase))
    assert re.search(pattern, source), phrase


def test_the_table_of_errors_is_read():
    assert len(messages()) > 15


def test_the_options_in_the_docs_are_keys_of_the_config():
    keys = set(flatten(paper()))
    named = re.findall(r"`([a-z_]+\.[a-z_.]+)=", OPTIONS)
    named += re.findall(r"`[^`]* ([a-z_]+\.[a-z_.]+)=", OPTIONS)
    assert len(named) >= 10 and [key for key in named if key not in keys] == []


def test_the_readme_fits_into_180_lines():
    assert len(README.splitlines()) <= 180


def test_the_readme_holds_the_command_that_the_continuous_integration_runs():
    # .ci/run takes it out of the README by this marker.
    block = re.search("<!-- test command -->\n```bash\n(.*?)```", README, re.DOTALL)
    assert block and "-m pytest" in block.group(1)


def test_the_config_for_own_features_can_be_used(tmp_path):
    code = re.search("```python\n(.*?)```", section("Your own features"), re.DOTALL)
    (tmp_path / "mine.py").write_text(code.group(1))
    config = load_config(str(tmp_path / "mine.py"), ["--config.data.root=DIR"])
    check(config)
    values = config.to_dict()
    data, clip = DataSpec.from_config(values["data"]), ClipConfig.from_config(values["clip"])
    assert data.classes == ("Shot", "Save", "Corner")
    model = ModelConfig.from_config(values["model"], data, clip)
    assert model.sources[0].rows == 100  # 50 s at 2 a second
    inference = InferenceConfig.from_config(values["inference"], clip, num_classes=3)
    assert inference.suppression.windows_seconds == (20.0,)
