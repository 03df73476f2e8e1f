"""The config's section `data`: sources, audio, classes and roots that can't be used."""

import math

import numpy as np
import pytest
from helpers.errors import check_line
from helpers.matches import MATCH, WIDE, data_config, index, write_labels

from astra_jax.data.sources import DataSpec
from astra_jax.errors import UserError


def test_a_root_that_is_not_set_names_the_key():
    with pytest.raises(UserError) as error:
        DataSpec.from_config(data_config(None))
    check_line(error, "data.root", "--config.data.root=DIR")


def source(**changes: object) -> dict[str, object]:
    return {"sources": ({"pattern": WIDE, "rows_per_second": 1, "widths": (6,)} | changes,)}


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"classes": ()}, "data.classes"),
        ({"classes": ("Goal", "Goal")}, "data.classes"),
        *(
            ({"periods": periods}, f"data.periods: {periods!r}")
            for periods in ((), (1, 1), (0, 1), (10,), ("1",), (1.0,), (True,), 2, None)
        ),
        ({"unknown_labels": "ignore"}, "data.unknown_labels"),
        ({"sources": (), "audio": None}, "data.sources"),
        (source(rate=1), "data.sources[0].rate"),
        ({"sources": ({"pattern": WIDE, "widths": (6,)},)}, "data.sources[0].rows_per_second"),
        (source(widths=()), "data.sources[0].widths"),
        (source(rows_per_second=0), "data.sources[0].rows_per_second"),
        (source(pattern="a.npy"), "{half}"),
        ({"audio": {"pattern": WIDE}}, "data.audio.frames_per_second"),
        ({"audio": data_config(".")["audio"] | {"mels": 0}}, "data.audio.mels"),
        ({"audio": data_config(".")["audio"] | {"mels": "many"}}, "data.audio.mels"),
        ({"audio": data_config(".")["audio"] | {"floor_db": math.nan}}, "data.audio.floor_db"),
        ({"audio": "audio{half}.npy"}, "data.audio: 'audio{half}.npy'"),
        ({"classes": "Goal"}, "data.classes"),
        ({"classes": (1, 2)}, "data.classes"),
        ({"sources": WIDE}, "data.sources: "),
        ({"sources": source()["sources"][0]}, "data.sources: a mapping"),
        ({"sources": (WIDE,)}, "data.sources: "),
        ({"sources": None}, "data.sources: None"),
        (source(widths=10), "data.sources[0].widths: 10"),
        (source(widths=(1.5,)), "data.sources[0].widths: (1.5,)"),
        (source(widths="six"), "data.sources[0].widths: 'six'"),
        (source(pattern=3), "data.sources[0].pattern: 3"),
        (source(pattern="{half}_{x}.npy"), "data.sources[0].pattern"),
        (source(pattern="{half}{"), "data.sources[0].pattern"),
        (source(rows_per_second=math.nan), "data.sources[0].rows_per_second: nan"),
        (source(rows_per_second=math.inf), "data.sources[0].rows_per_second: inf"),
        (source(shortcut_columns=7), "data.sources[0].shortcut_columns: 7"),
        (source(shortcut_columns=True), "data.sources[0].shortcut_columns: True"),
        (source(rows_per_second="1"), "data.sources[0].rows_per_second: '1'"),
        (source(rows_per_second=10**400), "data.sources[0].rows_per_second"),
    ],
)
def test_a_bad_config_names_its_key(tmp_path, change, word):
    with pytest.raises(UserError) as error:
        DataSpec.from_config(data_config(tmp_path, **change))
    check_line(error, word)


def test_one_recording_a_match_needs_no_number_in_its_files_name(tmp_path):
    folder = tmp_path / MATCH
    folder.mkdir(parents=True)
    np.save(folder / "mine.npy", np.zeros((120, 6), np.float32))
    write_labels(folder, [])
    changes = source(pattern="mine.npy") | {"audio": None, "periods": (1,)}
    (half,) = index(tmp_path, **changes)
    assert (half.half, half.seconds) == (1, 120)
    for periods in ((1, 2), (1, 2, 3)):
        with pytest.raises(UserError, match="pattern: 'mine.npy', .*with {half}.*periods"):
            index(tmp_path, **changes | {"periods": periods})
