"""Lists of matches: the shipped splits, text files and parts of them."""

import json
from pathlib import Path

import pytest
from helpers.errors import check_line

from astra_jax.data.splits import SPLITS, load_split
from astra_jax.errors import UserError


def test_the_shipped_splits_are_soccernets_and_disjoint():
    lists = [load_split(name) for name in SPLITS]
    assert [len(matches) for matches in lists] == [300, 100, 100, 50]
    assert len(set().union(*lists)) == 550


def test_a_split_list_may_have_blank_lines_comments_and_windows_line_ends(tmp_path):
    path = tmp_path / "own.txt"
    path.write_bytes("\ufeff# mine\r\n\r\nleague/season/A - B\r\n  l/s/C \n".encode())
    assert load_split(str(path)) == ("league/season/A - B", "l/s/C")


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "no match"),
        ("a\\b\n", "line 1"),
        ("/a\n", "line 1"),
        ("x\n../a\n", "line 2"),
        ("a\na\n", "line 2"),
        ("a/b\na/./b/\n", "line 2 lists 'a/b' again"),
        ("a/b\na//b\n", "line 2 lists 'a/b' again"),
        (".\n", "line 1"),
        ("x\n" + "a" * 300, "line 2"),
    ],
)
def test_a_bad_split_list_is_an_error(tmp_path, text, word):
    path = tmp_path / "own.txt"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        load_split(str(path))
    check_line(error, str(path), word)


def test_an_unknown_split_names_the_shipped_ones():
    with pytest.raises(UserError) as error:
        load_split("trian")
    check_line(error, "trian", "train, valid, test, challenge", "data.splits")


def test_a_name_too_long_for_a_file_is_no_list(tmp_path):
    for root in (None, tmp_path):
        with pytest.raises(UserError, match="neither a shipped split"):
            load_split("a" * 300, root)


def test_a_slice_takes_a_part_of_a_split_and_a_path_may_count_from_the_root(tmp_path):
    (tmp_path / "mine.txt").write_text("l/s/A\nl/s/B\nl/s/C\n", encoding="utf-8")
    assert load_split("mine.txt[:2]", tmp_path) == ("l/s/A", "l/s/B")
    assert load_split("mine.txt[-1:]", tmp_path) == ("l/s/C",)
    assert load_split("train[290:]") == load_split("train")[290:]
    with pytest.raises(UserError, match="lists no match"):
        load_split("mine.txt[5:]", tmp_path)
    with pytest.raises(UserError, match="neither"):
        load_split("mine.txt")


@pytest.mark.parametrize(
    "content",
    [
        ["l/s/A", " l/s//B/"],
        [{"path": "l/s/A", "fps": 25}, {"path": "l/s/B"}],
        [{"UrlLocal": "l/s/A/"}, "l/s/B"],
        {"train": ["l/s/A", "l/s/B"]},
        {"version": 2, "games": [{"match": "l/s/A"}, {"game": "l/s/B"}]},
        {"l": {"s": ["A", "B"]}},
    ],
)
def test_json_lists_of_matches_are_read(tmp_path, content):
    path = tmp_path / "list.json"
    path.write_text("\ufeff\n" + json.dumps(content, indent=1), encoding="utf-8")
    assert load_split(str(path)) == ("l/s/A", "l/s/B")
    assert load_split("list.json[1:]", tmp_path) == ("l/s/B",)


def test_the_packages_own_lists_are_read():
    package = Path(pytest.importorskip("SoccerNet").__file__).parent
    for name in SPLITS:
        path = package / "data" / f"SoccerNetGames{name.capitalize()}.json"
        assert sorted(load_split(str(path))) == sorted(load_split(name))


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ('["l/s/A",', "broken JSON"),
        ('{"l": {"s": ["A"]}, "l": {"s": ["B"]}}', "'l' stands twice in an object"),
        ("[" * 100_000, "broken JSON"),
        ("[]", "lists no match"),
        ('{"train": []}', "lists no match"),
        ("{}", '{"league": {"season": ["match", ...]}}'),
        ("[1]", '["league/season/match", ...]'),
        ('[["l/s/A"]]', "no list of matches"),
        ('[{"video": "x"}]', "no list of matches"),
        ('[{"path": null}]', "no list of matches"),
        ('{"train": ["l/s/A"], "valid": ["l/s/B"]}', "no list of matches"),
        ('{"l": {"s": [1]}}', "no list of matches"),
        ('{"l": {"s": "A"}}', "no list of matches"),
        ('["l/s/A", "l/s/A/"]', "entry 2 lists 'l/s/A' again"),
        ('{"l": {"s": ["../A"]}}', "entry 1"),
        ('["l\\\\s\\\\A"]', "forward slashes"),
        ('["/l/s/A"]', "entry 1"),
        ('[""]', "entry 1"),
        ('["l/s/\\ud800"]', "entry 1 is no folder's name"),
    ],
)
def test_json_that_is_no_list_of_matches_is_one_line(tmp_path, text, word):
    path = tmp_path / "list.json"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        load_split(str(path))
    check_line(error, str(path), word)
