"""The clock of a half as a source: the entry of `data.sources` that adds it."""

from typing import Any

PATTERN = "clock"
"""What `data.sources` gives as the pattern of a clock."""


DECAYS_SECONDS = (3.0, 10.0, 60.0, 300.0)
"""A column each: it is 1 at the half's start and falls to 1/e in that time."""


COLUMNS = 2 * len(DECAYS_SECONDS)


def source(rows_per_second: float = 0.5) -> dict[str, Any]:
    """The entry of `data.sources` that adds a clock."""
    return {"pattern": PATTERN, "rows_per_second": rows_per_second, "widths": (COLUMNS,)}
