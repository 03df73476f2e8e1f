"""Whatever a zip of results holds, on whatever system it was made: read, or refused in one line."""

import io
import json
import re
import struct
import tempfile
import unicodedata
import zipfile
from pathlib import Path
from typing import Any

import pytest
from helpers.examples import accepted, damaged, for_any
from hypothesis import example
from hypothesis import strategies as st

from astra_jax.formats.soccernet_results import FILE_NAME, read_predictions

MATCH = "league/season/Málaga 1 - 0 Ibiza"
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
NAME = f"{MATCH}/{FILE_NAME}"


def zip_of(members: list[tuple[bytes, int, bytes]], method: int = zipfile.ZIP_STORED) -> bytes:
    """A zip of members (name, flags, data), their names and flags just as given."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for number, (name, _, data) in enumerate(members):
            archive.writestr(f"{number:05}".ljust(len(name), "x")[: len(name)], data)
    packed = buffer.getvalue()
    for number, (name, flags, _) in enumerate(members):
        plain = f"{number:05}".ljust(len(name), "x")[: len(name)].encode()
        for head, flag_at, name_at in ((b"PK\3\4", 6, 30), (b"PK\1\2", 8, 46)):
            for found in re.finditer(re.escape(head), packed):
                at = found.start()
                if packed[at + name_at : at + name_at + len(name)] == plain:
                    flag = struct.unpack_from("<H", packed, at + flag_at)[0] & ~0x800 | flags
                    packed = (
                        packed[: at + flag_at]
                        + struct.pack("<H", flag)
                        + packed[at + flag_at + 2 : at + name_at]
                        + name
                        + packed[at + name_at + len(name) :]
                    )
    return packed


spellings = st.builds(
    lambda form, before, slash: before + unicodedata.normalize(form, NAME).replace("/", slash),
    st.sampled_from(["NFC", "NFD"]),
    st.sampled_from(["", "./", ".\\"]),
    st.sampled_from(["/", "\\", "//"]),
)
encoded = spellings.flatmap(
    lambda name: st.sampled_from([(name.encode(), 0x800), (name.encode(), 0)])
) | st.just((NAME.encode("cp437"), 0))
others = st.tuples(
    st.binary(min_size=5, max_size=20)
    | st.sampled_from([b"../evil", b"/tmp/evil", b"\xff\xfe\xfd\xfc\xfb", b"a/b/c/" + b"x" * 30]),
    st.sampled_from([0, 0x800, 1]),
)
SPOT = {"label": "Goal", "position": "1", "half": "1", "confidence": "0.5"}
GOOD = json.dumps({"predictions": [SPOT]}).encode()


def read_zip(data: bytes) -> list[Any] | None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "results.zip"
        path.write_bytes(data)
        found = accepted(read_predictions, path, [MATCH])
        assert [at.name for at in Path(name).iterdir()] == ["results.zip"]
        return None if found is None else found[MATCH]


def is_readable(name: bytes, flags: int) -> bool:
    """Whether a zip's name is in the alphabet that its flags say."""
    try:
        return name.decode("utf-8" if flags & 0x800 else "cp437") is not None
    except UnicodeDecodeError:
        return False


@for_any(encoded, st.lists(others, max_size=3), st.sampled_from(METHODS))
@example((NAME.encode(), 0x800), [(b"\xff\xfe\xfd\xfc\xfb", 0x800)], zipfile.ZIP_STORED)
def test_a_zip_of_any_system_is_read_beside_whatever_else_it_holds(name, others, method) -> None:
    beside = [(*other, b"{}") for other in others]
    # Python reads no zip with a name that says it is UTF-8 and isn't.
    right = [SPOT] if all(is_readable(*other) for other in others) else None
    assert read_zip(zip_of([*beside, (*name, GOOD)], method)) == right
    assert read_zip(zip_of([(*name, GOOD), *beside], method)) == right


@for_any(encoded, st.booleans())
def test_of_several_spellings_the_one_of_the_match_counts(name, first) -> None:
    other = json.dumps({"predictions": []}).encode()
    members = [(NAME.encode(), 0x800, GOOD), (*name, other)]
    found = read_zip(zip_of(members if first else members[::-1]))
    raw, flags = name
    if NAME in (raw.decode(errors="replace"), raw.decode("utf-8" if flags else "cp437")):
        assert found is not None
    else:
        assert found == [SPOT]


@for_any(
    st.one_of(
        st.binary(max_size=200),
        st.binary(max_size=100).map(b"PK\3\4".__add__),
        st.binary(min_size=18, max_size=60).map(b"PK\5\6".__add__),
        damaged(st.sampled_from([zip_of([(NAME.encode(), 0x800, GOOD)], m) for m in METHODS])),
    )
)
def test_a_damaged_zip_is_read_whole_or_refused_in_one_line(data: bytes) -> None:
    assert read_zip(data) in (None, [SPOT])


@pytest.mark.parametrize(
    ("method", "flips"),
    [
        (zipfile.ZIP_DEFLATED, (0xFF,)),
        *(
            pytest.param(method, (1, 2, 4, 8, 16, 32, 64, 128), marks=pytest.mark.slow)
            for method in METHODS
        ),
    ],
)
def test_whatever_byte_of_a_zip_is_damaged_it_is_read_whole_or_refused(
    method: int, flips: tuple[int, ...]
) -> None:
    packed = zip_of([(NAME.encode(), 0x800, GOOD)], method)
    for place in range(len(packed)):
        for flip in flips:
            data = packed[:place] + bytes([packed[place] ^ flip]) + packed[place + 1 :]
            assert read_zip(data) in (None, [SPOT]), (place, flip)
