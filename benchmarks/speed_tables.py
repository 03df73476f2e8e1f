"""The results of benchmarks/speed.py in Markdown, as docs/performance.md has them."""

import statistics
from collections.abc import Callable, Iterable, Mapping
from typing import Any

FRAMEWORKS = ("ours", "torch", "torch compiled")
_TITLES = ("ours", "PyTorch", "compiled")

Result = Mapping[str, Any]


def tables(results: Mapping[str, Result]) -> str:
    """A table of each kind of case that there is, and a line for each error."""
    kinds: dict[Callable[[Mapping[str, Result]], str], tuple[str, ...]] = {
        times: ("train", "forward"),
        resources: ("train", "forward"),
        starts: ("start",),
        loops: ("loop",),
        inferences: ("inference",),
    }
    parts = []
    for table, names in kinds.items():
        of_kind = {
            name: one
            for name, one in results.items()
            if one["kind"] in names and "error" not in one
        }
        if of_kind:
            parts.append(table(of_kind))
    errors = [f"{name}: {error}" for name, one in results.items() for error in _errors(one)]
    return "\n\n".join([*parts, "\n".join(errors)]).strip()


def times(results: Mapping[str, Result]) -> str:
    """Steps: medians, from the least to the most, and how many times as long PyTorch takes."""
    rows = []
    for name, case in results.items():
        medians = [_median(case, framework) for framework in FRAMEWORKS]
        ratios = [_ratio(median, medians[0]) for median in medians[1:]]
        rows.append([name, *(_seconds(case.get(f, {})) for f in FRAMEWORKS), *ratios])
    return _table(("step", *_TITLES, "PyTorch / ours", "compiled / ours"), rows)


def resources(results: Mapping[str, Result]) -> str:
    """Steps: peak memory, kernels, and what share of a product's FLOPs a second ours reaches."""
    rows = []
    for name, case in results.items():
        memory = [_number(case, f, "peak_bytes", 1e-9, "{:.1f} GB") for f in FRAMEWORKS]
        kernels = [
            " in ".join(
                (
                    _number(case, f, "kernels", 1, "{:,.0f}"),
                    _number(case, f, "kernel_ms", 1, "{:.1f} ms"),
                )
            )
            if "kernels" in case.get(f, {})
            else "-"
            for f in FRAMEWORKS
        ]
        rows.append([name, *memory, *kernels, *_shares(case)])
    titles = [f"{what}: {of}" for what in ("memory", "kernels") for of in _TITLES]
    return _table(("step", *titles, "GFLOP", "peak, GFLOP/s", "of peak: ours"), rows)


def starts(results: Mapping[str, Result]) -> str:
    """Seconds to the first step done."""
    rows = [
        [name, *(_number(case, f, kind, 1, "{:.1f} s") for f in FRAMEWORKS for kind in _KINDS)]
        for name, case in results.items()
    ]
    return _table(("start", *(f"{of}, {kind}" for of in _TITLES for kind in _KINDS)), rows)


_KINDS = ("cold", "warm")


def loops(results: Mapping[str, Result]) -> str:
    """Clips a second of train.py beside its bare step."""
    rows = []
    for name, case in results.items():
        loop, bare = statistics.median(case["clips_per_second"]), case["bare_clips_per_second"]
        waited = sum(case["seconds_waited"])
        rows.append(
            [name, f"{bare:.1f}", f"{loop:.1f}", f"{100 * loop / bare:.0f} %", f"{waited:.1f} s"]
        )
    titles = ("loop", "bare step, clips/s", "train.py, clips/s", "share", "waited for batches")
    return _table(titles, rows)


def inferences(results: Mapping[str, Result]) -> str:
    """Seconds that a match takes."""
    rows = []
    for name, case in results.items():
        ours, theirs = (_median(case, framework) for framework in FRAMEWORKS[:2])
        windows = _number(case, "ours", "windows", 1, "{:,}")
        seconds = [_seconds(case.get(framework, {})) for framework in FRAMEWORKS[:2]]
        rows.append([name, f"{case['minutes']}", windows, *seconds, _ratio(theirs, ours)])
    return _table(("match", "minutes", "windows", *_TITLES[:2], "PyTorch / ours"), rows)


def _median(case: Result, framework: str) -> float | None:
    seconds = case.get(framework, {}).get("seconds")
    return statistics.median(seconds) if seconds else None


def _ratio(seconds: float | None, ours: float | None) -> str:
    return "-" if seconds is None or ours is None else f"{seconds / ours:.2f}"


def _seconds(one: Result) -> str:
    if not (seconds := one.get("seconds")):
        return "-"
    scale, unit, digits = (1, "s", 2) if min(seconds) >= 0.1 else (1000, "ms", 2)
    middle, least, most = (
        f"{scale * value:.{digits}f}"
        for value in (statistics.median(seconds), min(seconds), max(seconds))
    )
    return f"{middle} {unit} ({least}-{most})"


def _number(case: Result, framework: str, key: str, scale: float, form: str) -> str:
    value = case.get(framework, {}).get(key)
    return "-" if value is None else form.format(scale * value)


def _shares(case: Result) -> tuple[str, str, str]:
    """Our step's GFLOP by XLA's count, and the share of the faster framework's product."""
    products = [
        2 * one["product_size"] ** 3 / statistics.median(one["product_seconds"])
        for one in (case.get(framework, {}) for framework in FRAMEWORKS)
        if one.get("product_seconds")
    ]
    ours = _median(case, "ours")
    if ours is None or not products:
        return "-", "-", "-"
    flops, peak = case["ours"]["flops"], max(products)
    return f"{flops / 1e9:,.0f}", f"{peak / 1e9:,.0f}", f"{100 * flops / ours / peak:.0f} %"


def _errors(case: Result) -> list[str]:
    of_frameworks = [case.get(framework, {}) for framework in FRAMEWORKS]
    return [one["error"] for one in (case, *of_frameworks) if "error" in one]


def _table(titles: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(titles)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
