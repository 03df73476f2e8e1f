"""The config that a run keeps in its folder: JSON, what differs between two, a digest."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from astra_jax.config.defaults import paper
from astra_jax.errors import UserError
from astra_jax.files import parse_mapping

# What may differ between a run and its continuation: where the data lie, how they are loaded, how
# many windows are predicted at a time, who is told of it and how often, where programs are kept,
# and splits that training doesn't read.
_MAY_DIFFER = (
    "data.root",
    "data.labels_root",
    "data.features_root",
    "data.audio_root",
    "data.workers",
    "data.cache",
    "training.log_every_steps",
    "inference.batch_size",
    "logging.tensorboard",
    "logging.wandb_project",
    "training.compilation_cache",
)


# Keys that are no more, and the value that every run has had since.
_LEFT_OUT = {
    "loss.class_weights": None,
    "loss.displacement_normalization": "positions",
    "optimizer.decoupled_decay": False,
}


def to_json(config: ConfigDict) -> str:
    """`config` as JSON text, its keys in order."""
    return json.dumps(plain(config), indent=1) + "\n"


def plain(value: Any) -> Any:
    """ConfigDicts as dicts and tuples as lists, all the way down."""
    if isinstance(value, ConfigDict):
        return {key: plain(value[key]) for key in value}
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def from_json(path: Path) -> ConfigDict:
    """The config that a run keeps at `path`; keys that it does not know have the default.

    Raises:
        UserError: the file is missing or is no config.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file: is {path.parent} the --workdir of a training run?")
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        _drop_left_out(saved)
        config = paper()
        with config.unlocked():
            for key, value in saved.items():
                _fill(config, key, _tuples(value))
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise UserError(
            f"{path}: not a run's config ({error}): restore it or train anew"
        ) from error
    config.lock()
    return config


def _drop_left_out(saved: dict[str, Any]) -> dict[str, Any]:
    """Takes out of a run's config what there is no more; what of it was in use, by dotted key."""
    used = {}
    for name, value in _LEFT_OUT.items():
        section, _, key = name.partition(".")
        of_run = saved.get(section, {}).pop(key, value)
        if of_run != value:
            used[name] = of_run
    return used


def check_left_out(path: Path) -> None:
    """Raises UserError for a run, its config at `path`, that trained by what there is no more.

    It can be evaluated, and other runs can start from it, but nothing can go on training it.
    """
    for name, value in _drop_left_out(parse_mapping(path)).items():
        raise UserError(
            f"{path}: {name} is {value!r}, which there is no more: go on with the version that the "
            "run was trained with, or train in another --workdir"
        )


def _fill(config: ConfigDict, key: str, value: Any) -> None:
    # Which splits there are is the config's own choice; elsewhere missing keys have defaults.
    merged = isinstance(value, dict) and key != "splits"
    if isinstance(config.get(key), ConfigDict) and merged:
        for name, item in value.items():
            _fill(config[key], name, item)
    elif isinstance(config.get(key), ConfigDict) and not isinstance(value, dict | None):
        raise TypeError(f"{key} is {value!r}")
    elif value is not None or config.get(key) is not None:
        with config.ignore_type():
            config[key] = ConfigDict(value) if isinstance(value, dict) else value


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    if isinstance(value, list):
        return tuple(_tuples(item) for item in value)
    return value


def may_differ(key: str) -> bool:
    """Whether a dotted key may differ between a run and its continuation."""
    other_split = key.startswith("data.splits.") and key.split(".")[2] not in ("train", "valid")
    return key in _MAY_DIFFER or other_split


def digest(config: ConfigDict) -> str:
    """A hash of a run's config but for what `may_differ`, the same after a `config.json`."""

    def number(value: Any) -> Any:
        if isinstance(value, list):
            return [number(item) for item in value]
        return float(value) if isinstance(value, int) and not isinstance(value, bool) else value

    values = {k: number(v) for k, v in flatten(config).items() if not may_differ(k)}
    text = json.dumps(values, sort_keys=True)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def differences(config: ConfigDict, other: ConfigDict) -> list[str]:
    """Dotted keys whose values differ, or that one of the two lacks."""
    first, second = flatten(config), flatten(other)
    missing = object()
    return sorted(
        key
        for key in first.keys() | second.keys()
        if first.get(key, missing) != second.get(key, missing)
    )


def flatten(config: ConfigDict) -> dict[str, Any]:
    """Values by dotted key."""

    def flat(value: Any, prefix: str = "") -> dict[str, Any]:
        if not isinstance(value, dict):
            return {prefix: value}
        items = [flat(item, f"{prefix}.{key}".lstrip(".")) for key, item in value.items()]
        return {key: item for part in items for key, item in part.items()}

    return flat(plain(config))
