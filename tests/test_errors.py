"""What messages are made of: lists of names that may be long, errors of other packages."""

import pytest
from helpers.errors import check_line

from astra_jax.data.arrays import open_array
from astra_jax.errors import UserError, join_some, one_line, shown
from astra_jax.formats.soccernet_labels import read_raw_annotations


def test_of_many_items_some_are_named_and_the_others_counted():
    assert join_some([], 2) == ""
    assert join_some(("a", "b"), 2) == "a, b"
    assert join_some(["a", "b", "c", "d", "e"], 2) == "a, b and 3 more"


def test_an_errors_text_is_one_line_and_its_type_where_it_has_none():
    assert one_line(ValueError("of two\n  lines")) == "of two lines"
    assert one_line(KeyboardInterrupt()) == "KeyboardInterrupt"
    assert one_line("a" * 300) == "a" * 200
    assert one_line("a b", most=1) == "a"


def test_a_users_error_is_one_line_whatever_the_names_in_it_hold():
    assert str(UserError("list\u2028.txt\r\n: mend  it")) == "list .txt : mend  it"


def test_every_wrong_value_is_shown_in_short():
    assert shown("a\nb") == r"'a\nb'"
    assert shown({"a": 1}) == "a mapping"
    assert shown(10**5000) == "a number of thousands of digits"
    assert len(shown(["x" * 1000] * 1000)) < 300


@pytest.mark.parametrize("read", [read_raw_annotations, open_array])
def test_a_file_that_the_system_does_not_let_be_read_is_one_line_with_the_mend(tmp_path, read):
    """As a folder in its place is, whoever runs this: root may read anything."""
    (tmp_path / "file").mkdir()
    with pytest.raises(UserError) as error:
        read(tmp_path / "file")
    check_line(error, str(tmp_path / "file"), "Is a directory", "mend its rights")
