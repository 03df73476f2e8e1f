"""Whether a config can be used: every key there, of the right kind and in its range."""

import sys
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from astra_jax.config.defaults import paper
from astra_jax.config.simulated import simulated_matches
from astra_jax.errors import UserError, shown

_LARGEST_WHOLE = 2**32


class Range(NamedTuple):
    """The numbers that a value may be; a limit of None doesn't limit."""

    above: float | None = None
    least: float | None = None
    below: float | None = None
    most: float | None = None

    def holds(self, value: float) -> bool:
        """Whether `value` is in the range; NaN and infinities never are."""
        return (
            abs(value) <= sys.float_info.max
            and (self.above is None or value > self.above)
            and (self.least is None or value >= self.least)
            and (self.below is None or value < self.below)
            and (self.most is None or value <= self.most)
        )

    def __str__(self) -> str:
        limits = {
            "above": self.above,
            "of at least": self.least,
            "below": self.below,
            "of at most": self.most,
        }
        return " and ".join(
            f"{word} {limit}" for word, limit in limits.items() if limit is not None
        )


_ABOVE_ZERO = Range(above=0)
_NOT_NEGATIVE = Range(least=0)
_COUNT = Range(least=1)
_LAYERS = Range(least=1, most=100)
_PROBABILITY = Range(least=0, most=1)
_DROPOUT = Range(least=0, below=1)
_SEED = Range(least=0, below=2**32)
# Nothing in a match is longer than two hours.
_SECONDS = Range(above=0, most=7200)

RANGES: dict[str, Range] = {
    "seed": _SEED,
    "data.workers": _NOT_NEGATIVE,
    "clip.seconds": _SECONDS,
    "clip.stride_seconds": _SECONDS,
    "clip.positions_per_second": Range(above=0, most=1000),
    "targets.class_radius_seconds": _NOT_NEGATIVE,
    "targets.displacement_radius_seconds": _NOT_NEGATIVE,
    "mixup.alpha": _ABOVE_ZERO,
    "mixup.beta": _ABOVE_ZERO,
    "model.dim": _COUNT,
    "model.heads": _COUNT,
    "model.feed_forward": _COUNT,
    "model.encoder_layers": _LAYERS,
    "model.decoder_layers": _LAYERS,
    "model.dropout": _DROPOUT,
    "model.embedding_dropout": _DROPOUT,
    "model.head_dropout": _DROPOUT,
    "model.temporal_dropout": _PROBABILITY,
    "model.temporal_switch": _PROBABILITY,
    "model.class_prior": Range(above=0, below=1),
    "model.shortcut_seconds": Range(least=0, most=7200),
    "model.audio.segment_frames": _COUNT,
    "model.audio.hidden": _COUNT,
    "loss.classification_weight": _NOT_NEGATIVE,
    "loss.displacement_weight": _NOT_NEGATIVE,
    "optimizer.learning_rate": _ABOVE_ZERO,
    "optimizer.warmup_epochs": _NOT_NEGATIVE,
    "optimizer.weight_decay": _NOT_NEGATIVE,
    "optimizer.clip_norm": _ABOVE_ZERO,
    "training.batch_size": _COUNT,
    "training.accumulation_steps": _COUNT,
    "training.epochs": Range(least=1, most=1_000_000),
    "training.validate_every_epochs": _COUNT,
    "training.patience_epochs": _COUNT,
    "training.average_decay": _DROPOUT,
    "training.checkpoint_every_steps": _NOT_NEGATIVE,
    "training.most_skipped_steps": _COUNT,
    "training.log_every_steps": _NOT_NEGATIVE,
    "inference.stride_seconds": _ABOVE_ZERO,
    "inference.batch_size": _COUNT,
    "inference.threshold": Range(above=0, below=1),
    "inference.suppression.window_scale": _ABOVE_ZERO,
    "evaluation.frame_rate": Range(least=1, most=1000),
    "simulation.seed": _SEED,
    "simulation.train_matches": _COUNT,
    "simulation.valid_matches": _NOT_NEGATIVE,
    "simulation.test_matches": _NOT_NEGATIVE,
    "simulation.half_seconds": Range(least=1, most=7200),
    "simulation.rarity_exponent": _NOT_NEGATIVE,
    "simulation.density": _ABOVE_ZERO,
    "simulation.jitter_seconds": _NOT_NEGATIVE,
    "simulation.jittered_seconds": _NOT_NEGATIVE,
}
"""Ranges of the config's numbers; those whose default is whole must be whole."""

_KINDS: dict[type, tuple[type | tuple[type, ...], str]] = {
    bool: (bool, "True or False"),
    str: (str, "a text"),
    tuple: ((tuple, list), "a list"),
}

# What a source and a file of audio hold is read, and checked, in `data.sources`.
_CHECKED_ELSEWHERE = ("data.sources", "data.audio", "data.splits", "simulation")


def check(config: ConfigDict) -> None:
    """Compares a run's config with the paper's: its keys, their kinds, ranges and relations.

    None is allowed where the default is None. What only one room knows, such as names of
    schedules or how sizes fit each other, that room's settings check.

    Raises:
        UserError: naming the first key that is missing, unknown or has a value that it can't have.
    """
    _check_group(config, paper(), "")
    _check_splits(config.data.splits)
    if config.simulation is not None:
        _check_group(config.simulation, simulated_matches(), "simulation")
    windows = config.inference.suppression.windows_seconds
    _check_numbers(windows, "inference.suppression.windows_seconds", float, _SECONDS)
    for index, pattern in enumerate(config.freeze):
        _check_value(pattern, f"freeze[{index}]", str)
    channels = config.model.audio.channels
    _check_numbers(channels, "model.audio.channels", int, _COUNT)
    if len(channels) != 6:
        raise _wrong("model.audio.channels", channels, "six whole numbers, one a convolution")
    if config.model.audio.init_from is not None and config.data.audio is None:
        raise _wrong(
            "model.audio.init_from",
            config.model.audio.init_from,
            "None where data.audio is None: a model without audio has no VGGish to start from it",
        )
    _check_times(config)


def _check_group(config: Any, default: ConfigDict, group: str) -> None:
    """One mapping of the config, and the mappings in it."""
    names = ", ".join(default)
    if not isinstance(config, ConfigDict):
        raise _wrong(group, config, f"a mapping with the keys {names}")
    prefix = f"{group}." if group else ""
    for key in default:
        if key not in config:
            raise UserError(
                f"config.{prefix}{key}: missing; begin with astra_jax.config.paper(), where every "
                "key stands (the config.json of an older version's run lacks new keys: "
                "train it again)"
            )
    for key in config:
        if key not in default:
            raise UserError(f"config.{prefix}{key}: no such key; there are {names}")
    for key in default:
        name = prefix + key
        if name in _CHECKED_ELSEWHERE:
            continue
        if isinstance(default[key], ConfigDict):
            _check_group(config[key], default[key], name)
        elif config[key] is not None or default[key] is not None:
            _check_value(config[key], name, default.get_type(key))


def _check_value(value: Any, name: str, kind: type) -> None:
    if kind in (int, float):
        _check_number(value, name, kind, RANGES.get(name, Range()))
    else:
        allowed, words = _KINDS[kind]
        if not isinstance(value, allowed):
            raise _wrong(name, value, words)


def _check_number(value: Any, name: str, kind: type, allowed: Range) -> None:
    whole = kind is int
    number = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    large = number and abs(value) > (_LARGEST_WHOLE if whole else sys.float_info.max)
    if not number or large or not allowed.holds(value):
        words = "whole number" if whole else "number"
        if large:
            words = f"{'smaller' if whole else 'finite'} {words}"
        raise _wrong(name, value, f"a {words} {allowed}".strip())


def _check_numbers(values: Any, name: str, kind: type, allowed: Range) -> None:
    for index, value in enumerate(values):
        _check_number(value, f"{name}[{index}]", kind, allowed)


def _check_splits(splits: Any) -> None:
    if not isinstance(splits, ConfigDict):
        raise _wrong("data.splits", splits, "a mapping of names to lists of matches")
    for name, value in splits.items():
        if not isinstance(value, str | None):
            raise _wrong(
                f"data.splits.{name}",
                value,
                "the name of a shipped list, a text file or a JSON list",
            )


def _check_times(config: ConfigDict) -> None:
    """Strides and radii against the grid of output positions and the length of a clip."""
    position = 1 / config.clip.positions_per_second
    for group in ("clip", "inference"):
        stride = config[group].stride_seconds
        # 1e-9: a third of a second at 3 a second is a whole position, however it rounds.
        if stride < position * (1 - 1e-9):
            raise _wrong(
                f"{group}.stride_seconds", stride, f"at least one output position ({position:g} s)"
            )
    near, far = config.targets.class_radius_seconds, config.targets.displacement_radius_seconds
    if not near <= far <= config.clip.seconds:
        raise _wrong(
            "targets.displacement_radius_seconds",
            far,
            f"from class_radius_seconds ({near}) to clip.seconds ({config.clip.seconds})",
        )


def _wrong(name: str, value: Any, words: str) -> UserError:
    text = "a mapping" if isinstance(value, ConfigDict) else shown(value)
    return UserError(f"config{'.' if name else ''}{name}: {text}, it must be {words}")
