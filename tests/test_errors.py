"""What messages are made of: lists of names that may be long, errors of other packages."""

from astra_jax.errors import join_some, one_line


def test_of_many_items_some_are_named_and_the_others_counted():
    assert join_some([], 2) == ""
    assert join_some(("a", "b"), 2) == "a, b"
    assert join_some(["a", "b", "c", "d", "e"], 2) == "a, b and 3 more"


def test_an_errors_text_is_one_line_and_its_type_where_it_has_none():
    assert one_line(ValueError("of two\n  lines")) == "of two lines"
    assert one_line(KeyboardInterrupt()) == "KeyboardInterrupt"
    assert one_line("a" * 300) == "a" * 200
    assert one_line("a b", most=1) == "a"
