"""A start from another run's parameters: which of them fit, by what they mean and by shape."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from astra_jax.data.time import exact_rate
from astra_jax.errors import join_some

WarmStart = Callable[[Any], Any]
"""Fresh parameters of a run, NumPy arrays, to those of the same shapes that it starts from."""

# Layers whose last axis is background and the classes, in this order.
_MEANS = ("displacement_head/output", "displacement_head/mean", "displacement_head/log_variance")
_CLASS_OUTPUTS = ("classification_head/output", *_MEANS, "shortcut/logits")
# Parameters of one layer: one without the others would say nothing.
_OF_A_LAYER = ("kernel", "bias", "scale")
_MOST_NAMES = 12


@dataclass(frozen=True)
class Outline:
    """What the paths and shapes of a run's parameters don't say.

    `classes` are the outputs after background. `sources` are their patterns. `meanings` says of
    the parameters below a path what else must agree: the times of codes, the columns that the
    shortcut sees, the unit of displacements.
    """

    classes: tuple[str, ...]
    sources: tuple[str, ...]
    meanings: dict[str, tuple[Any, ...]]

    @classmethod
    def from_config(
        cls, model: Mapping[str, Any], data: Mapping[str, Any], clip: Mapping[str, Any]
    ) -> "Outline":
        """That of a run whose config has these sections."""
        seconds, rate = float(clip["seconds"]), float(clip["positions_per_second"])
        meanings: dict[str, tuple[Any, ...]] = {"decoder/queries": (seconds, rate)}
        meanings |= {path: (rate,) for path in _MEANS}  # displacements are in positions
        seen = []
        for i, source in enumerate(data["sources"]):
            per_second = float(exact_rate(source["rows_per_second"]))
            meanings[f"source_{i}/time_code"] = (seconds, per_second)
            columns = source.get("shortcut_columns")
            width = sum(source["widths"]) if columns is None else columns
            seen.append((source["pattern"], per_second, width))
        if model["shortcut_seconds"] is not None:
            meanings["shortcut"] = (*seen, min(model["shortcut_seconds"], seconds))
        if data["audio"] is not None:
            frames = data["audio"]["frames_per_second"]
            meanings["audio/time_code"] = (seconds, frames, model["audio"]["segment_frames"])
        patterns = tuple(source["pattern"] for source in data["sources"])
        return cls(tuple(data["classes"]), patterns, meanings)

    def meaning(self, path: str) -> list[tuple[Any, ...]]:
        """What must agree for the parameters at `path` to say the same."""
        return [value for start, value in self.meanings.items() if _below(path, start)]


@dataclass(frozen=True)
class Transfer:
    """Which parameters a run takes from another one.

    `paths`: those of ours that are taken, to theirs. `columns`: of the layers that have an output
    a class, ours and theirs that belong together. `fresh` and `left_over`: in words, modules and
    classes of ours that take nothing, of theirs that nothing takes. `count`: how many numbers are
    taken.
    """

    paths: dict[str, str]
    columns: tuple[tuple[int, int], ...]
    fresh: str
    left_over: str
    count: int

    def apply(self, fresh: Any, stored: Any) -> Any:
        """`fresh` with what is taken of `stored`, both trees of NumPy arrays; changes neither."""
        ours, theirs = flatten_dict(fresh, sep="/"), flatten_dict(stored, sep="/")
        for path, source in self.paths.items():
            ours[path] = self._take(path, ours[path], theirs[source])
        return unflatten_dict(ours, sep="/")

    def _take(self, path: str, fresh: Any, stored: Any) -> Any:
        if not _has_classes(path):
            return stored.astype(fresh.dtype)
        merged = np.array(fresh)
        to, of = (list(side) for side in zip(*self.columns, strict=True))
        merged[..., to] = stored[..., of]
        return merged

    def notes(self, workdir: Any) -> str:
        """What begins fresh and what of the run in `workdir` nothing takes; "" where all fits."""
        parts = {"fresh": self.fresh, f"left over in {workdir}": self.left_over}
        return "; ".join(f"{name}: {words}" for name, words in parts.items() if words)


def plan_transfer(fresh: Any, stored: Any, ours: Outline, theirs: Outline) -> Transfer:
    """Which of the `stored` parameters a run takes in the place of its `fresh` ones.

    Both are trees of what has a shape; the outlines say what they mean. A layer is taken whole,
    and only where all its shapes agree. What differs is looked at so:

    - Outputs of classes are matched by the class's name, whatever their order and number;
      background is always one of them.
    - Sources are matched by their patterns where neither run has one twice, else by their places.
    - Codes and queries are taken for the same clip length and rate only, the displacement's
      outputs at the same rate of positions, the shortcut where it sees the same columns.
    """
    our_leaves, their_leaves = flatten_dict(fresh, sep="/"), flatten_dict(stored, sep="/")
    columns = _columns(ours.classes, theirs.classes)
    sources = _sources(ours.sources, theirs.sources)
    layers: dict[str, dict[str, str]] = defaultdict(dict)
    for path in our_leaves:
        top, _, rest = path.partition("/")
        source = f"{sources.get(top, '')}/{rest}" if top.startswith("source_") else path
        layers[_layer(path)][path] = source
    paths = {
        path: source
        for layer in layers.values()
        if all(
            source in their_leaves
            and _fits(path, our_leaves[path].shape, their_leaves[source].shape)
            and ours.meaning(path) == theirs.meaning(source)
            for path, source in layer.items()
        )
        for path, source in layer.items()
    }
    by_class = any(_has_classes(path) for path in paths)
    new = [name for name in ours.classes if by_class and name not in theirs.classes]
    gone = [name for name in theirs.classes if by_class and name not in ours.classes]
    fresh_modules = _modules(our_leaves.keys() - paths.keys(), our_leaves)
    left_over = _modules(their_leaves.keys() - set(paths.values()), their_leaves)
    count = sum(_count_taken(path, our_leaves[path].shape, len(columns)) for path in paths)
    return Transfer(paths, columns, _words(fresh_modules, new), _words(left_over, gone), count)


def _columns(ours: tuple[str, ...], theirs: tuple[str, ...]) -> tuple[tuple[int, int], ...]:
    shared = [(i + 1, theirs.index(name) + 1) for i, name in enumerate(ours) if name in theirs]
    return ((0, 0), *shared)  # background


def _sources(ours: tuple[str, ...], theirs: tuple[str, ...]) -> dict[str, str]:
    """The modules of our sources to theirs."""
    if all(len(set(patterns)) == len(patterns) for patterns in (ours, theirs)):
        pairs = [(i, theirs.index(name)) for i, name in enumerate(ours) if name in theirs]
    else:
        pairs = [(i, i) for i in range(min(len(ours), len(theirs)))]
    return {f"source_{i}": f"source_{k}" for i, k in pairs}


def _fits(path: str, ours: tuple[int, ...], theirs: tuple[int, ...]) -> bool:
    return ours[:-1] == theirs[:-1] if _has_classes(path) else ours == theirs


def _count_taken(path: str, shape: tuple[int, ...], columns: int) -> int:
    return int(np.prod((*shape[:-1], columns) if _has_classes(path) else shape))


def _has_classes(path: str) -> bool:
    return any(_below(path, start) for start in _CLASS_OUTPUTS)


def _layer(path: str) -> str:
    parent, _, name = path.rpartition("/")
    return parent if name in _OF_A_LAYER else path


def _below(path: str, start: str) -> bool:
    return path == start or path.startswith(f"{start}/")


def _modules(chosen: Collection[str], paths: Iterable[str]) -> list[str]:
    """The largest modules, and single parameters, that hold the `chosen` of `paths` alone."""
    kept = [path for path in paths if path not in chosen]
    names = []
    for path in sorted(chosen):
        parts = path.split("/")
        starts = ("/".join(parts[: depth + 1]) for depth in range(len(parts)))
        names.append(next(s for s in starts if not any(_below(other, s) for other in kept)))
    return list(dict.fromkeys(names))


def _words(modules: list[str], classes: list[str]) -> str:
    outputs = [f"the outputs of {join_some(classes, _MOST_NAMES)}"] if classes else []
    return ", ".join(([join_some(modules, _MOST_NAMES)] if modules else []) + outputs)
