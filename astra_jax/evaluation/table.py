"""Scores as a table to read."""

from collections.abc import Collection, Mapping, Sequence

from astra_jax.evaluation.metrics import METRICS, SUBSETS, Block

_SUBSET_TITLES = ("all", "visible", "not shown")


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
    return aligned(rows)


def aligned(rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    """Lines of a title and cells, each cell below the one of the line before."""
    width = max(len(title) for title, _ in rows)
    lines = [title.ljust(width) + "".join(f"{cell:>11}" for cell in cells) for title, cells in rows]
    return "\n".join(line.rstrip() for line in lines)
