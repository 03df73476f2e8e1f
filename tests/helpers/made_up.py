"""Made-up entries of label and results files: right ones in all their spellings, wrong ones."""

from helpers.examples import EVERY_CHARACTER, JSON_VALUES
from hypothesis import strategies as st

CLASSES = ("Goal", "Foul")
LATEST_MS = 10**9
"""The latest time that a label file may hold."""

seconds = st.integers(0, 99).map("{:02}".format)
clocks = st.builds(
    "{}{}-{}{}:{}".format,
    st.integers(1, 9),
    st.sampled_from(["", " ", "  ", "\t"]),
    st.sampled_from(["", " ", "\u00a0"]),
    st.integers(0, 999) | seconds,
    seconds,
)
wild_clocks = st.sampled_from(
    [
        *("", "12:15", "10 - 00:15", "0 - 00:15", "1 - 00:15 ", "1 - 00:15\n", "1 – 00:15"),
        *("1 - 1000:00", "1 - 00:5", "1 - 00:005", "１ - 00:15", "1 - ٠٠:15", "1 - -1:00", "1-:1"),
    ]
)
near = st.integers(0, 6_000_000)
times = near | st.sampled_from([0, LATEST_MS, 10_000])
positions = st.one_of(
    times,
    times.map(float),
    times.map(str),
    times.map(" {}\n".format),
    times.map("+{}".format),
    times.map("{:_}".format),
    times.map(lambda time: str(time).translate({48 + digit: 0x660 + digit for digit in range(10)})),
)
wild_positions = st.one_of(
    JSON_VALUES,
    st.integers(-10, -1),
    st.integers(-10, -1).map(str),
    times.map("{}.0".format),
    st.floats(),
    st.sampled_from(
        [LATEST_MS + 1, 1e10, 10**4000, -(10**4000), "-" + "9" * 4000, "9" * 5000, "1e3"]
    ),
)
visibilities = st.sampled_from(["visible", "not shown", None, "Not shown"]) | JSON_VALUES
labels = st.fixed_dictionaries(
    {"gameTime": clocks, "label": st.sampled_from(CLASSES)},
    optional={"position": positions, "visibility": visibilities, "team": JSON_VALUES},
)
odd_labels = st.fixed_dictionaries(
    {},
    optional={
        "gameTime": clocks | wild_clocks | JSON_VALUES,
        "label": st.sampled_from(CLASSES) | JSON_VALUES,
        "position": positions | wild_positions,
        "visibility": visibilities,
    },
)
LABELS = (
    st.lists(labels, max_size=5)
    | st.lists(labels | odd_labels, max_size=3)
    | odd_labels.map(lambda one: [one])
)
"""Lists of annotations, about half of them all right."""

whole = st.integers(0, 8_000_000)
good_spots = st.fixed_dictionaries(
    {
        "label": st.sampled_from(CLASSES) | st.text(EVERY_CHARACTER),
        "position": whole.map(str) | whole | st.floats(0, 8e6) | st.integers(-(10**7), -1),
        "half": st.sampled_from(["1", 2, " 2 ", 1.9, "3", True]),
        "confidence": st.floats(0, 1) | st.floats(0, 1).map(str) | st.floats() | st.none(),
    },
    optional={"gameTime": JSON_VALUES, "sigma_seconds": st.text()},
)
odd_value = JSON_VALUES | st.sampled_from(["9" * 4000, 10**4000, 1e300, "1e3", "∞", "-inf", "1_0"])
odd_spots = st.fixed_dictionaries(
    {},
    optional={key: odd_value for key in ("label", "position", "half", "confidence", "gameTime")},
)
SPOTS = st.lists(good_spots, max_size=5) | st.lists(
    good_spots | odd_spots | JSON_VALUES, max_size=3
)
"""Lists of predictions, likewise."""
