"""The pages: links and files that are there, commands that can be given, and data that is named."""

import ast
import functools
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from ml_collections import ConfigDict

from astra_jax.cli.main import build_parser
from astra_jax.config import paper
from astra_jax.config.check import check
from astra_jax.config.load import load_config, override

ROOT = Path(__file__).parents[1]
README, CONTRIBUTING, CHANGELOG = (
    ROOT / f"{stem}.md" for stem in ("README", "CONTRIBUTING", "CHANGELOG")
)
INDEX = ROOT / "docs" / "README.md"
PAGES = [README, CONTRIBUTING, CHANGELOG, *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = {page: page.read_text(encoding="utf-8") for page in PAGES}
# The changelog names files and modules of former versions.
CURRENT = [page for page in PAGES if page != CHANGELOG]

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
# Commands in the text; a bare `python train.py` is a name.
INLINE = re.compile(
    r"`(python (?!(?:train|evaluate)\.py`)[^`]*\.py[^`]*|(?:\S*python -m )?pytest [^`]*)`"
)
FOLDERS = ("astra_jax", "benchmarks", "configs", "docs", "experiments", "tests", ".ci")
OWN = "mine.py"  # The reader's config: the README has it.


class Command(NamedTuple):
    """One command, in words; `prose`: the text of its section, without any command or code."""

    page: Path
    words: tuple[str, ...]
    prose: str


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def label(command: Command) -> str:
    return f"{name(command.page)}: {' '.join(command.words)}"


def sections(text: str) -> Iterator[str]:
    """A page, cut at its headings below the first level (which look like no comment of bash)."""
    yield from re.split(r"^(?=##+ )", text, flags=re.MULTILINE)


def commands_in(code: str) -> Iterator[tuple[str, ...]]:
    """The commands of some bash: in words, without comments and without `A=B` before them.

    Programs are called as in the environment: `.venv/bin/pip` is pip, `python train.py` is astra
    train, `python -m pytest` is pytest.
    """
    for line in re.sub(r"\\\n|(?<=&&)\n", " ", code).splitlines():
        for part in " ".join(map(shlex.quote, shlex.split(line, comments=True))).split("'&&'"):
            words = shlex.split(part)
            while words and re.match("[A-Z_]+=", words[0]):
                words.pop(0)
            if words:
                words[0] = Path(words[0]).name.replace("python3", "python")
                match words:
                    case ["python", ("train.py" | "evaluate.py") as script, *rest]:
                        words = ["astra", script.removesuffix(".py"), *rest]
                    case ["python", "-m", "pytest", *rest]:
                        words = ["pytest", *rest]
                yield tuple(words)


def all_commands() -> list[Command]:
    """Those of the blocks of bash, and those of python and pytest between backticks."""
    found = []
    for page in CURRENT:
        for section in sections(TEXTS[page]):
            text = BLOCK.sub("", section)
            code = [content for language, content in BLOCK.findall(section) if language == "bash"]
            code += [" ".join(command.split()) for command in INLINE.findall(text)]
            prose = INLINE.sub("", text)
            found += [Command(page, words, prose) for one in code for words in commands_in(one)]
    return found


COMMANDS = all_commands()
BY_PROGRAM = {
    program: [command for command in COMMANDS if command.words[0] == program]
    for program in sorted({command.words[0] for command in COMMANDS})
}
SCRIPTS = [command for command in BY_PROGRAM["python"] if command.words[1].endswith(".py")]


def of_verb(*verbs: str) -> list[Command]:
    return [command for command in BY_PROGRAM["astra"] if command.words[1] in verbs]


def parsed(command: Command):
    """The arguments of an `astra` command, overrides of the config among them."""
    args, rest = build_parser().parse_known_args(command.words[1:])
    assert not rest or "overrides" in args, f"unknown: {rest}"
    args.overrides = rest
    return args


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> Path:
    """The README's config for one's own features, as a file."""
    path = tmp_path_factory.mktemp("own") / OWN
    path.write_text(next(code for kind, code in BLOCK.findall(TEXTS[README]) if kind == "python"))
    return path


def config_of(command: Command, own: Path) -> ConfigDict:
    """The config of a training."""
    args = parsed(command)
    file, colon, argument = args.config.partition(":")
    path = own if file == OWN else ROOT / file
    return load_config(f"{path}{colon}{argument}", args.overrides)


@functools.cache
def made_runs() -> dict[str, Command]:
    """The runs' folders that commands of the pages make, and the first of these commands."""
    made: dict[str, Command] = {}
    for command in of_verb("train", "import-torch"):
        args = parsed(command)
        if args.command == "train" and args.workdir is None:
            file, _, argument = args.config.partition(":")
            default = "_".join([Path(file).stem, *argument.split(",")]).rstrip("_")
        folder = args.out if args.command == "import-torch" else args.workdir or f"runs/{default}"
        made.setdefault(str(folder), command)
    return made


# Links and the index.


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def links(page: Path) -> list[str]:
    found = re.findall(r"\]\(([^)\s]+)\)", BLOCK.sub("", TEXTS[page]).replace("\n", " "))
    return [link for link in found if "://" not in link]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_leads_to_a_file_and_a_heading(page):
    for link in links(page):
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), link
        if anchor:
            headings = re.findall("^#+ (.*)$", BLOCK.sub("", TEXTS[target]), re.MULTILINE)
            assert anchor in map(slug, headings), link


def test_every_page_is_in_the_index():
    listed = {(INDEX.parent / link.partition("#")[0]).resolve() for link in links(INDEX)}
    assert {page for page in PAGES if page.parent == INDEX.parent} - {INDEX} <= listed


def test_the_index_is_one_of_questions():
    questions = re.findall(r"^\| (.*?) \| \[", TEXTS[INDEX], re.MULTILINE)
    assert len(questions) > 12 and all(question.endswith("?") for question in questions)


# Files and rooms.


def rows(page: Path) -> list[list[str]]:
    """The rows of the table from the paper to the code."""
    table = TEXTS[page].partition("| paper | file |\n| --- | --- |\n")[2].partition("\n\n")[0]
    return [line.strip("| ").split(" | ") for line in table.splitlines()]


@pytest.mark.parametrize("page", [README, CONTRIBUTING], ids=name)
def test_each_part_of_the_paper_leads_to_files_that_are_there(page):
    for part, files in rows(page):
        named = [item for item in re.findall("`([^`]+)`", files) if "/" in item]
        assert named, part
        assert [file for file in named if not (ROOT / file).is_file()] == [], part


@pytest.mark.parametrize("page", [README, CONTRIBUTING], ids=name)
def test_every_section_and_equation_with_code_is_in_the_table(page):
    parts = " ".join(row[0] for row in rows(page))
    for section in ("3.1", "3.2", "3.3", "3.4", "3.5", "3.6", "4.2", "4.3", "4.4", "4.5"):
        assert re.search(rf"(?<![\d.]){re.escape(section)} |{section},", parts), section
    assert {"1", "2", "3"} <= set(re.findall(r"\d", " ".join(re.findall("equations?[^|]*", parts))))


def test_the_rooms_are_the_folders_of_the_package_in_one_order():
    table = re.findall(r"^\| `(\w+)/` \|", TEXTS[README], re.MULTILINE)
    listed = re.findall(r"^\d+\. `(\w+)/`", TEXTS[CONTRIBUTING], re.MULTILINE)
    folders = {file.parent.name for file in (ROOT / "astra_jax").glob("*/*.py")}
    assert table == listed and set(table) == folders


@pytest.mark.parametrize("page", CURRENT, ids=name)
def test_every_file_that_a_page_names_is_there(page):
    files = {file.name for top in FOLDERS for file in (ROOT / top).rglob("*.py")}
    missing = []
    for item in re.findall(r"`([^`\s]+)`", BLOCK.sub("", TEXTS[page])):
        path = item.partition(":")[0].rstrip("/")
        if path.partition("/")[0] in FOLDERS:
            there = any(ROOT.glob(path))
        elif path.endswith(".py") and path != OWN:
            there = (ROOT / path).is_file() or path in files
        else:
            continue
        missing += [] if there else [item]
    assert missing == []


# Commands.


def test_the_pages_hold_no_program_that_no_test_reads():
    # Below: astra, python, pytest, pip, uv, pdoc. The others take no file and no key of ours.
    read = {"astra", "python", "pytest", "pip", "uv", "pdoc"}
    assert set(BY_PROGRAM) - read <= {"ruff", "mypy", "pre-commit", "source"}
    kinds = {command.words[1] for command in BY_PROGRAM["python"]}
    assert {kind for kind in kinds if not kind.endswith(".py")} <= {"-m", "-c"}


@pytest.mark.parametrize("command", BY_PROGRAM["astra"], ids=label)
def test_a_command_has_the_flags_that_it_is_given(command):
    parsed(command)


@pytest.mark.parametrize("command", of_verb("train"), ids=label)
def test_a_training_has_a_config_that_can_be_used_and_data(command, own):
    config = config_of(command, own)
    check(config)
    # The capitals of config.data.root are explained: see below.
    assert config.simulation is not None or config.data.root.isupper()


@pytest.mark.parametrize("command", of_verb("evaluate"), ids=label)
def test_an_evaluation_has_runs_of_these_pages_and_a_split_of_theirs(command, own):
    args = parsed(command)
    override(paper(), args.overrides)
    made = made_runs()
    for workdir in str(args.workdir).split(","):
        assert workdir in made
        train = made[workdir].words[1] == "train"
        splits = (config_of(made[workdir], own) if train else paper()).data.splits
        simulated = ("train", "valid", "test")
        assert args.split in {*splits, *simulated} or args.split.endswith(".txt")


@pytest.mark.parametrize("command", COMMANDS, ids=label)
def test_the_data_of_a_command_is_named_beside_it(command):
    """A run is made by another command; what is in capitals, and files, are in the text."""
    made = made_runs()
    makes = command.words[:2] in (("astra", "train"), ("astra", "import-torch"))
    for before, word in zip(command.words, (*command.words[1:], ""), strict=True):
        value = word.rpartition("=")[2]
        for capitals in re.findall(r"\b[A-Z][A-Z_]+\b", word):
            assert re.search(rf"\b{capitals}\b", command.prose), capitals
        if value.startswith("runs/") and before != "--out":
            run = "/".join(value.split("/")[:2]).split(",")[0]
            assert run in made or (makes and before == "--workdir"), run
        elif re.search(r"\w\.(py|txt|tar|pth|npy)$", value) and not (ROOT / value).exists():
            assert any(ROOT.glob(value)) or value in command.prose, value


@pytest.mark.parametrize("command", SCRIPTS, ids=label)
def test_a_script_is_there_and_has_the_flags_that_it_is_given(command):
    text = (ROOT / command.words[1]).read_text(encoding="utf-8")
    for word in command.words[2:]:
        if word.startswith("--") and not word.startswith("--config."):
            assert f'"{word.partition("=")[0]}"' in text, word


def test_code_on_a_command_line_is_python():
    for command in BY_PROGRAM["python"]:
        if command.words[1] == "-c":
            ast.parse(command.words[2])


@pytest.mark.parametrize("command", BY_PROGRAM["pytest"], ids=label)
def test_a_command_of_pytest_has_its_files_and_its_marker(command):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    markers = [line.split(":")[0] for line in project["tool"]["pytest"]["ini_options"]["markers"]]
    for before, word in zip(command.words, command.words[1:], strict=False):
        assert not word.endswith(".py") or (ROOT / word).is_file()
        assert before != "-m" or word in markers


def test_every_extra_is_one_of_the_package():
    setup = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))
    calls = [node for node in ast.walk(setup) if isinstance(node, ast.keyword)]
    call = next(node for node in calls if node.arg == "extras_require")
    extras = set(ast.literal_eval(call.value))
    for page in CURRENT:
        for named in re.findall(r"'(?:\.|astra-jax)\[([\w,]+)\]'", TEXTS[page]):
            assert set(named.split(",")) <= extras, (name(page), named)
    for command in BY_PROGRAM["uv"]:
        for before, word in zip(command.words, command.words[1:], strict=False):
            assert before != "--extra" or word in extras


def test_the_api_pages_are_made_of_files_that_are_there():
    for command in BY_PROGRAM["pdoc"]:
        for word in command.words[1:]:
            assert word.partition("/")[0] not in FOLDERS or any(ROOT.glob(word)), word
