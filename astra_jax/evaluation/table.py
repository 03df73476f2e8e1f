"""Scores as a table to read."""

from collections.abc import Collection, Mapping, Sequence

from astra_jax.evaluation.metrics import METRICS, SUBSETS, Block

_SUBSET_TITLES = ("all", "visible", "not shown")
_LEAST_WIDTH = 9


def score_table(blocks: Mapping[str, Block], per_class: Collection[str] = METRICS) -> str:
    """Readable text of `metrics.json`'s blocks, in percent: the averages, then each class's.

    `per_class`: the metrics whose classes are shown.
    """
    rows: list[tuple[str, Sequence[str]]] = [("Average-mAP, %", _SUBSET_TITLES)]
    for metric, block in blocks.items():
        rows.append((metric, [f"{100 * block[f'a_mAP{subset}']:.2f}" for subset in SUBSETS]))
    for metric, block in blocks.items():
        if metric not in per_class:
            continue
        rows += [("", ()), (f"{metric} per class, %", _SUBSET_TITLES)]
        for name in block["a_mAP_per_class"]:
            values = [block[f"a_mAP_per_class{subset}"][name] for subset in SUBSETS]
            rows.append((name, [f"{100 * value:.2f}" for value in values]))
    return align_numbers(rows)


def align_numbers(rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    """Lines of a title and cells, the cells below each other at the right."""
    widths = [_LEAST_WIDTH] * max(len(cells) for _, cells in rows)
    for _, cells in rows:
        for column, cell in enumerate(cells):
            widths[column] = max(widths[column], len(cell))
    return align_columns(
        [
            (title, *(cell.rjust(width) for cell, width in zip(cells, widths, strict=False)))
            for title, cells in rows
        ]
    )


def align_columns(rows: Sequence[Sequence[str]]) -> str:
    """Lines of cells, each column as wide as its widest cell; rows may end early."""
    widths = [
        max(len(row[column]) for row in rows if column < len(row))
        for column in range(max(len(row) for row in rows))
    ]
    lines = ("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=False)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)
