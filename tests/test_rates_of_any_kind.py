"""Whatever a config gives for a rate: it is the fraction it says, or refused in one line."""

import json
import math
import tempfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from helpers.errors import check_line
from helpers.examples import EVERY_CHARACTER, JSON_VALUES, accepted, for_any
from hypothesis import example
from hypothesis import strategies as st
from ml_collections import ConfigDict

from astra_jax.config import paper
from astra_jax.config.load import override
from astra_jax.config.saved import digest, from_json, to_json
from astra_jax.data.time import exact_rate
from astra_jax.errors import UserError
from astra_jax.runs.folder import RunFolder
from astra_jax.runs.settings import Settings, resolve

CLIP_SECONDS = 50

whole = st.integers(0, 10**6) | st.integers(0, 10**30)
fractions = st.builds("{}{}/{}{}".format, whole, st.sampled_from(["", " "]), whole, st.just(""))
NTSC = [29.97, 59.94, 23.976, 1.998, 0.999, 30000 / 1001, 30000 / 1001 / 15, 14.985]
numbers = st.one_of(
    st.floats(0.02, 200),
    st.decimals("0.02", "200", places=3).map(float),
    st.integers(1, 200),
    st.sampled_from(NTSC),
    st.floats(),
    st.integers(),
    st.sampled_from([10**300, 10**400, 1e308, 1e-308, 5e-324, 1e5, 100_001, -0.0, 1e-4]),
)
odd = st.sampled_from(["30000/1001", " 25 / 12 ", "1/0", "0/1", "-1/2", "1.5/2", "１/２", "1/", ""])
rates = numbers | fractions | odd | JSON_VALUES | st.text(EVERY_CHARACTER) | st.booleans()


def by_hand(value: Any) -> Fraction | None:
    """The rate that it means, None for none: another reading."""
    if isinstance(value, str):
        parts = [part.strip() for part in value.split("/")]
        if len(parts) != 2 or not all(part.isdecimal() and len(part) < 4000 for part in parts):
            return None
        if not int(parts[1]):
            return None
        rate = Fraction(int(parts[0]), int(parts[1]))
    elif isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 10**300:
        rate = Fraction(str(value))
        if rate.denominator > 1:
            many = rate * 1001 / 25
            near = Fraction(25 * math.floor(many + Fraction(1, 2)), 1001)
            rate = near if abs(near - rate) * 500_000 <= rate else rate
    else:
        return None
    return rate if Fraction(1, 7200) <= rate <= 100_000 else None


def config_of(rate: Any) -> ConfigDict:
    """The paper's model, its only source at such a rate."""
    config = paper()
    with config.ignore_type():
        config.data.sources = (
            {"pattern": "{half}_f.npy", "rows_per_second": rate, "widths": (4,)},
        )
        config.data.audio = None
        config.model.hierarchical = False
    config.data.root = "/nowhere"
    return config


def settings_of(config: ConfigDict) -> Settings:
    return Settings.from_config(resolve(config, RunFolder(Path("/nowhere"))))


def check_rate(config: ConfigDict, right: Fraction | None) -> None:
    """The settings have this rate, and its rows a clip, and have them again after config.json."""
    settings = accepted(settings_of, config)
    rows = 0 if right is None else math.floor(CLIP_SECONDS * right + Fraction(1, 2))
    assert (settings is None) == (rows == 0)
    if settings is None:
        return
    assert settings.data.sources[0].rows_per_second == right
    assert settings.model.sources[0].rows == rows
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "config.json"
        path.write_text(to_json(config))
        saved = from_json(path)
    assert digest(saved) == digest(config)
    again = settings_of(saved)
    assert again.data.sources == settings.data.sources
    assert again.model == settings.model


@for_any(rates)
@example(10**5000)
@example("9" * 5000 + "/1")
@example("1/999999999999999999999")
@example("1" + "0" * 400 + "/1")
@example(1e308)
@example(1e-308)
@example(math.nan)
@example(True)
@example(None)
def test_any_rate_is_the_fraction_it_says_or_refused(rate: Any) -> None:
    right = by_hand(rate)
    if right is not None:
        assert exact_rate(rate) == right
    check_rate(config_of(rate), right)


@for_any(
    rates.map(str) | rates.map(json.dumps) | st.text(EVERY_CHARACTER),
    st.sampled_from([2.0, 2, "1/2"]),
)
@example("", 2.0)
@example("9" * 5000, 2)
@example("1e400", 2.0)
@example("[" * 5000, "1/2")
def test_any_override_of_a_rate_is_taken_or_refused_in_one_line(text: str, before: Any) -> None:

    def overridden(text: str) -> ConfigDict:
        return override(config_of(before), [f"--config.data.sources[0].rows_per_second={text}"])

    config = accepted(overridden, text)
    if config is None:
        return
    rate = config.data.sources[0]["rows_per_second"]
    # Whatever it became, it says the same as the text.
    same = rate == text if isinstance(rate, str) else repr(type(rate)(text)) == repr(rate)
    assert same
    check_rate(config, by_hand(rate))


@pytest.mark.parametrize("key", ["frames_per_second", "mels"])
@pytest.mark.parametrize("value", [10**300, 100_001, 0, True, 1.5, "100", None])
def test_sizes_of_audio_that_no_memory_holds_are_refused(key: str, value: Any) -> None:
    config = config_of(2)
    with config.ignore_type():
        config.data.audio = dict(paper().data.audio) | {key: value}
    with pytest.raises(UserError) as error:
        settings_of(config)
    check_line(error, f"data.audio.{key}")
