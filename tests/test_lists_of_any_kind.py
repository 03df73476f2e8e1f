"""Whatever a list of matches looks like: it is read whole, or refused in one line."""

import json
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from helpers.examples import (
    EVERY_CHARACTER,
    FILES,
    JSON_VALUES,
    accepted,
    as_json,
    damaged,
    for_any,
)
from hypothesis import example
from hypothesis import strategies as st

from astra_jax.data.splits import SPLITS, load_split, split_matches

letters = st.text(
    st.sampled_from("ab#[]{}+:\\'\"é ~.-1\t") | st.characters(exclude_characters="/"), max_size=5
)
parts = st.lists(letters | st.text(EVERY_CHARACTER, max_size=5), min_size=1, max_size=4)
paths = parts.map("/".join) | parts.map("/".join).map("./{}/".format)
listed = st.one_of(
    st.lists(paths, max_size=4),
    st.lists(
        st.builds(
            lambda key, path: {key: path},
            st.sampled_from(["path", "UrlLocal", "match", "game", "video"]),
            paths,
        ),
        max_size=3,
    ),
)
nested = st.dictionaries(
    letters, st.dictionaries(letters, st.lists(letters, max_size=2), max_size=2), max_size=2
)
lists = st.one_of(
    listed,
    listed.map(lambda entries: {"version": 1, "games": entries}),
    nested,
    JSON_VALUES,
)
texts = st.lists(paths | st.sampled_from(["", "# a line of words", "  "]), max_size=5).flatmap(
    lambda lines: st.sampled_from(["\n", "\r\n"]).map(lambda end: end.join(lines))
)
files = FILES | damaged(as_json(lists)) | texts.map(lambda text: text.encode(errors="replace"))


def check_matches(folder: Path, matches: Sequence[str]) -> None:
    """They lie below a root, each once, and are the same written in every form."""
    for match in matches:
        assert match.isprintable() or match.splitlines() == [match]
        assert not match.startswith("/") and "\\" not in match
        assert all(part not in ("", ".", "..") for part in match.split("/"))
    assert len(set(matches)) == len(matches) > 0
    # Else a name that begins with # were a comment, and one that ends with a space were cut.
    spelt = [f"./{match}/" for match in matches]
    forms: dict[str, Any] = {
        "list.txt": "\n".join(["# matches", *spelt, ""]),
        "list.json": json.dumps(spelt),
        "paths.json": json.dumps([{"path": match, "fps": 25} for match in spelt]),
        "games.json": json.dumps({"version": 1, "games": spelt}, ensure_ascii=False),
        "nested.json": json.dumps({".": {".": spelt}}),
    }
    for name, text in forms.items():
        (folder / name).write_text(text, encoding="utf-8")
        assert load_split(name, folder) == matches, name
        assert load_split(f"{name}[:1]", folder) == matches[:1]
        assert load_split(f"{name}[-1:]", folder) == matches[-1:]
    if len(matches) > 1:
        assert load_split("list.txt[:1]+list.json[1:]", folder) == matches
    assert accepted(load_split, "list.txt+list.json", folder) is None


@for_any(files)
@example(b'["a/b", "a\\u2028b"]')
@example(b'["#a", "a/ /"]')
@example(b"[" * 100_000)
@example(b'["' + b"a" * 300 + b'"]')
def test_any_file_is_a_list_of_matches_or_refused_in_one_line(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "any").write_bytes(data)
        matches = accepted(load_split, str(Path(name) / "any"))
        if matches is not None:
            check_matches(Path(name), matches)


@for_any(lists)
def test_any_json_is_a_list_of_matches_or_refused_in_one_line(content: Any) -> None:
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "any").write_text(json.dumps(content))
        matches = accepted(load_split, str(Path(name) / "any"))
        if matches is not None:
            check_matches(Path(name), matches)


numbers = st.integers(-400, 400).map(str) | st.sampled_from(["", "-", "9" * 5000, "٣", "+1", "1.0"])
slices = st.just("") | st.builds("[{}:{}]".format, numbers, numbers) | st.text(max_size=3)
names = st.sampled_from([*SPLITS, "mine", "a+b", "mine+", "~", "~none", "~\0", "~\ud800", ".", ""])
own = st.sampled_from([*SPLITS, "mine", "a+b", "mine[:2]", "mine[2:]", "a+b[-1:]", "test[5:7]"])
ways = st.lists(own, min_size=1, max_size=4) | st.lists(
    st.builds(str.__add__, names | letters, slices), min_size=1, max_size=3
)


@for_any(ways)
@example(["train[:" + "9" * 5000 + "]"])
@example(["~\0"])
@example(["~\ud800"])
@example(["mine", "a+b"])
def test_any_name_of_lists_is_read_or_refused_in_one_line(named: list[str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for own in ("mine", "a+b"):
            (folder / own).write_text("".join(f"{own}/{k}\n" for k in range(5)))
        whole = accepted(load_split, "+".join(named), folder)
        of_config = accepted(lambda text: split_matches({"x": text}, "x", folder), "+".join(named))
        assert of_config == whole
        apart = [accepted(load_split, part, folder) for part in named]
        if not all(apart):  # it may mean something with what stands beside it
            return
        together = [match for matches in apart for match in matches or ()]
        if len(set(together)) == len(together):
            assert whole == tuple(together) or "a+b" in "+".join(named)
        else:
            assert whole is None


def test_a_slice_without_its_number_is_none() -> None:
    assert accepted(load_split, "train[-:2]") is None
    assert accepted(load_split, "train[٣:]") is None


@for_any(st.integers(-8, 8) | st.none(), st.integers(-8, 8) | st.none())
def test_slices_are_those_of_python(first: int | None, last: int | None) -> None:
    right = load_split("valid")[first:last]
    part = re.sub("None", "", f"valid[{first}:{last}]")
    assert (accepted(load_split, part) or ()) == right
