"""Properties that hold for any input: tried on made-up examples, more of them in the slow suite."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from astra_jax.errors import UserError

QUICK, SLOW = 100, 2000

EVERY_CHARACTER = st.characters()  # half ones too: text() leaves them out

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from([10**400, -(10**400), 2**63, 1e308, "nan", "1", "0x1", "１２", "1_0"])
    | st.text(EVERY_CHARACTER, max_size=8),
    lambda items: (
        st.lists(items, max_size=4)
        | st.dictionaries(st.text(EVERY_CHARACTER, max_size=8), items, max_size=4)
    ),
    max_leaves=8,
)


def for_any(*strategies: Any, **named: Any) -> Callable[[Callable], Callable]:
    """`hypothesis.given` with QUICK examples, the same each time; SLOW others under `-m slow`.

    The property takes what is made up and no fixture; `hypothesis.example` goes below this.
    """

    def decorate(holds: Callable) -> Callable:
        @pytest.mark.parametrize("examples", [QUICK, pytest.param(SLOW, marks=pytest.mark.slow)])
        def test(examples: int) -> None:
            chosen = settings(
                max_examples=examples,
                derandomize=examples == QUICK,
                deadline=None,
                database=None,
                suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
            )
            chosen(given(*strategies, **named)(holds))()

        test.__name__, test.__doc__ = holds.__name__, holds.__doc__
        test.__module__ = holds.__module__
        return test

    return decorate


@st.composite
def damaged(draw: st.DrawFn, content: st.SearchStrategy[bytes]) -> bytes:
    """Bytes with a piece cut out, put in or overwritten, in another encoding, or none of that."""
    data = draw(content)
    how = draw(st.sampled_from(["whole", "mark", "utf-16", "latin-1", "cut", "put", "over"]))
    if how in ("utf-16", "latin-1"):
        return data.decode(errors="replace").encode(how, errors="replace")
    first = draw(st.integers(0, len(data)))
    size = draw(st.integers(0, 8))
    piece = draw(st.binary(min_size=size, max_size=size))
    return {
        "whole": data,
        "mark": b"\xef\xbb\xbf" + data,
        "cut": data[:first],
        "put": data[:first] + piece + data[first:],
        "over": data[:first] + piece + data[first + size :],
    }[how]


def as_json(values: st.SearchStrategy[Any]) -> st.SearchStrategy[bytes]:
    """JSON of such values, as Python and others write it."""
    return st.builds(
        lambda value, ascii_only, indent: json.dumps(
            value, ensure_ascii=ascii_only, indent=indent
        ).encode(errors="backslashreplace"),
        values,
        st.booleans(),
        st.sampled_from([None, 1]),
    )


FILES = st.binary(max_size=40) | damaged(as_json(JSON_VALUES)) | st.text().map(str.encode)
"""What no format was thought of for."""


def accepted(read: Callable[..., Any], *arguments: Any) -> Any:
    """What `read` gives; None where it refuses in one line, not an endless one."""
    try:
        return read(*arguments)
    except UserError as error:
        message = str(error)
        assert len(message.splitlines()) == 1, message
        assert len(message) < 2000 + sum(
            len(argument) for argument in arguments if isinstance(argument, str)
        ), message
        return None
