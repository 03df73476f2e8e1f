"""The rooms of the package: what lies where, who imports whom, and who may know what."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import astra_jax

ROOT = Path(astra_jax.__path__[0])

GROUND = ("errors", "files", "devices")
ROOMS = (
    *("config", "formats", "data", "model", "torch_import", "training", "spotting"),
    *("evaluation", "runs", "cli"),
)
"""In the order of imports: a room imports only from those before it, and from the ground."""

KNOW_THE_WHOLE_CONFIG = ("config", "runs", "cli")
NAMES_FILES_OF_RUNS = "runs/folder.py"
FILES_OF_RUNS = (
    *("config.json", "normalization.json", "provenance.json", "checkpoints", "metrics.jsonl"),
    *("metrics.json", "summary.json", "log.txt", "run.lock", "seeds.json", "seed_"),
    *("wandb_run_id.txt", "matches/"),
)
ROUNDING = ("round", "floor", "ceil", "rint", "int", "trunc", "astype")


def files(root: Path) -> dict[str, ast.Module]:
    """The package's files by their path below it."""
    paths = (path for path in root.rglob("*.py") if "configs" not in path.parts)
    return {
        path.relative_to(root).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
        for path in paths
    }


def room_of(file: str) -> str:
    """The folder that a file lies in, the ground's and the package's own files under ""."""
    return file.partition("/")[0] if "/" in file else ""


def imported_rooms(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """The line and the room of every import of the package, wherever it stands in a file."""
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            package, _, rest = name.partition(".")
            if package == "astra_jax":
                first = rest.partition(".")[0]
                yield node.lineno, first if first in ROOMS else ""


def wrong_imports(trees: dict[str, ast.Module]) -> list[str]:
    """Imports of a room from one that comes after it."""
    wrong = []
    for file, tree in trees.items():
        room = room_of(file)
        if Path(file).name == "__init__.py":
            continue
        # The ground comes before all rooms.
        place = ROOMS.index(room) if room else -1
        for line, other in imported_rooms(tree):
            if other and ROOMS.index(other) > place:
                wrong.append(f"{file}:{line} imports {other}")
    return wrong


def loose_files(trees: dict[str, ast.Module]) -> list[str]:
    """Files that lie in no room."""
    top = {"__init__.py", *(f"{name}.py" for name in GROUND)}
    return [file for file in trees if file not in top and room_of(file) not in ROOMS]


def names_of(tree: ast.AST) -> set[str]:
    """Every name that a file uses or imports."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.ImportFrom | ast.Import):
            found |= {part for alias in node.names for part in alias.name.split(".")}
    return found


def docstrings(tree: ast.Module) -> set[int]:
    """The ids of the constants that are docstrings, or stand alone as one does."""
    return {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }


def spelled_names(tree: ast.Module) -> list[str]:
    """The names of a run's files in a file's texts, sentences for people left out."""
    texts = docstrings(tree)
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
            continue
        if id(node) in texts or " " in node.value.strip():
            continue
        found += [name for name in FILES_OF_RUNS if name in node.value]
    return found


def rounded_times(tree: ast.Module) -> list[str]:
    """Calls that round a product or a quotient of a rate."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            rates = [part for part in names_of(node) if part.endswith("_per_second")]
            arithmetic = any(isinstance(part, ast.BinOp) for part in ast.walk(node))
            if name in ROUNDING and rates and arithmetic:
                found.append(ast.unparse(node))
    return found


@pytest.fixture(scope="module")
def trees() -> dict[str, ast.Module]:
    return files(ROOT)


def test_every_room_is_there(trees: dict[str, ast.Module]) -> None:
    assert {room_of(file) for file in trees} == {"", *ROOMS}


def test_every_file_lies_in_a_room(trees: dict[str, ast.Module]) -> None:
    assert loose_files(trees) == []


def test_a_room_imports_only_from_rooms_before_it(trees: dict[str, ast.Module]) -> None:
    assert wrong_imports(trees) == []


def test_the_whole_config_stops_at_the_door(trees: dict[str, ast.Module]) -> None:
    names = {"ConfigDict", "FrozenConfigDict", "ml_collections"}
    knowing = {room_of(file) for file, tree in trees.items() if names & names_of(tree)}
    assert knowing <= set(KNOW_THE_WHOLE_CONFIG)


def test_the_files_of_a_run_are_named_in_one_place(trees: dict[str, ast.Module]) -> None:
    spelled = {file: spelled_names(tree) for file, tree in trees.items()}
    assert spelled.pop(NAMES_FILES_OF_RUNS)
    assert {file: names for file, names in spelled.items() if names} == {}


def test_time_is_counted_in_one_place(trees: dict[str, ast.Module]) -> None:
    rounded = {file: rounded_times(tree) for file, tree in trees.items()}
    assert {file: calls for file, calls in rounded.items() if calls} == {}


# The checks above can fail.


def parsed(file: str, code: str) -> dict[str, ast.Module]:
    return {file: ast.parse(code)}


@pytest.mark.parametrize(
    "code",
    [
        "from astra_jax.training.loop import Trainer",
        "from astra_jax import training",
        "import astra_jax.training.loop",
        "def later():\n    from astra_jax.runs import train",
    ],
)
def test_an_import_of_a_later_room_is_found(code: str) -> None:
    assert wrong_imports(parsed("spotting/inference.py", "import jax")) == []
    assert len(wrong_imports(parsed("data/clips.py", code))) == 1
    assert len(wrong_imports(parsed("errors.py", code))) == 1
    assert wrong_imports(parsed("cli/train.py", code)) == []


def test_a_file_outside_of_a_room_is_found() -> None:
    assert loose_files(parsed("helpers.py", "")) == ["helpers.py"]
    assert loose_files(parsed("utilities/text.py", "")) == ["utilities/text.py"]


def test_a_name_of_a_run_s_file_is_found() -> None:
    assert spelled_names(ast.parse('path = folder / "config.json"')) == ["config.json"]
    assert spelled_names(ast.parse('path = f"{folder}/checkpoints/best"')) == ["checkpoints"]
    assert (
        spelled_names(ast.parse('"""Reads config.json."""\nhelp = "see config.json there"')) == []
    )


def test_the_whole_config_in_a_signature_is_found() -> None:
    code = "from ml_collections import ConfigDict\ndef f(config: ConfigDict): ..."
    assert "ConfigDict" in names_of(ast.parse(code))


def test_a_rounded_time_is_found() -> None:
    assert rounded_times(ast.parse("round(seconds * source.rows_per_second)"))
    assert rounded_times(ast.parse("np.floor(ms / 1000 * positions_per_second).astype(int)"))
    assert not rounded_times(ast.parse("round(seconds / 60)"))
    assert not rounded_times(ast.parse("index_at(seconds, source.rows_per_second)"))
