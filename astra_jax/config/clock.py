"""The clock of a half as a source: how the config names it, and what its columns are."""

from typing import Any

CLOCK_PATTERN = "clock"
"""What `data.sources` gives as the pattern of a clock."""

CLOCK_DECAYS_SECONDS = (3.0, 10.0, 60.0, 300.0)
"""A column each: it is 1 at the half's start and falls to 1/e in that time."""

CLOCK_COLUMNS = 2 * len(CLOCK_DECAYS_SECONDS)
"""As many again count down to the half's end."""


def clock_source(rows_per_second: float = 0.5) -> dict[str, Any]:
    """The entry of `data.sources` that adds a half's clock, which needs no file."""
    return {
        "pattern": CLOCK_PATTERN,
        "rows_per_second": rows_per_second,
        "widths": (CLOCK_COLUMNS,),
    }
