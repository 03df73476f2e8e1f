"""Parameters that don't train: which they are, and trees without them."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

import jax

from astra_jax.errors import UserError


def partition(params: Any, patterns: Sequence[str]) -> tuple[Any, Any]:
    """The trained parameters and the frozen ones: two trees, None where the other has its leaf.

    Frozen are those whose path, its names joined by "/", matches a pattern; `*` crosses "/". What
    is None in a tree is no leaf: it has no gradient, no share in a norm, no moments, no decay.
    """
    trained = jax.tree.map_with_path(
        lambda path, leaf: None if _matches(path, patterns) else leaf, params
    )
    frozen = jax.tree.map_with_path(
        lambda path, leaf: leaf if _matches(path, patterns) else None, params
    )
    return trained, frozen


def combine(trained: Any, frozen: Any) -> Any:
    """The tree that `partition` took apart."""
    return jax.tree.map(
        lambda ours, theirs: theirs if ours is None else ours,
        trained,
        frozen,
        is_leaf=lambda leaf: leaf is None,
    )


def check_freeze(params: Any, patterns: Sequence[str]) -> None:
    """Raises UserError where a pattern of `config.freeze` matches nothing, or all are frozen."""
    paths = [path for path, _ in jax.tree.leaves_with_path(params)]
    for pattern in patterns:
        if not any(_matches(path, [pattern]) for path in paths):
            raise UserError(
                f"config.freeze: {pattern!r} matches no parameter of the model: write a whole path "
                f"or end it with /*; they begin with {', '.join(sorted(params))}"
            )
    if all(_matches(path, patterns) for path in paths):
        raise UserError(
            f"config.freeze: {', '.join(map(repr, patterns))} leaves no parameter to train: drop "
            "a pattern, or evaluate the run as it is"
        )


def frozen_names(params: Any, patterns: Sequence[str]) -> list[str]:
    """The paths, joined by "/", of the parameters that the patterns freeze."""
    paths = [path for path, _ in jax.tree.leaves_with_path(params)]
    return ["/".join(part.key for part in path) for path in paths if _matches(path, patterns)]


def _matches(path: tuple[Any, ...], patterns: Sequence[str]) -> bool:
    name = "/".join(part.key for part in path)
    return any(fnmatchcase(name, pattern) for pattern in patterns)
