"""Config files and `--config.KEY=VALUE` overrides to a config; a resolved one is frozen."""

import re
import traceback
from collections.abc import Mapping, Sequence
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import MappingProxyType

from absl import flags
from ml_collections import ConfigDict, FrozenConfigDict, config_flags

from astra_jax.errors import UserError

# What config files of earlier versions import, and what has taken its place.
_MOVED = {
    "astra_jax.defaults": "astra_jax.config",
    "astra_jax.variants": "astra_jax.config.recipes",
    "astra_jax.data.clock.source": "clock_source of astra_jax.config",
}

# A wheel has the configs inside the package, a checkout beside it.
_PLACES = (Path(__file__).parents[1] / "configs", Path(__file__).parents[2] / "configs")
_MEND = "see astra_jax/config/defaults.py for every key"


def find_config(file: str) -> str:
    """`file`, or the shipped config of its name where it is a `configs/NAME.py` that is not there.

    Raises:
        UserError: neither is there.
    """
    if Path(file).is_file():
        return file
    if Path(file).parent == Path("configs"):
        for place in _PLACES:
            if (place / Path(file).name).is_file():
                return str(place / Path(file).name)
    raise UserError(f"--config: there is no file {file}: configs/demo.py runs without any data")


def load_config(path: str, overrides: Sequence[str] = ()) -> ConfigDict:
    """The config of the file at `path` (or `path:argument`), with `--config.key=value` overrides.

    A `configs/NAME.py` that is not there is the shipped one, where there is one of this name.

    Raises:
        UserError: no such file, a fault in it, no such key, or a value of the wrong type.
    """
    file, _, argument = path.partition(":")
    file = find_config(file)
    loader = SourceFileLoader("astra_config", file)
    spec = spec_from_loader(loader.name, loader)
    assert spec is not None  # there is one for every loader
    module = module_from_spec(spec)
    try:
        loader.exec_module(module)
        config = module.get_config(argument) if argument else module.get_config()
    except UserError as error:
        raise UserError(f"--config {path}: {error}") from error
    except (Exception, SystemExit) as error:  # a config file is a program: it may do anything
        frames = traceback.extract_tb(error.__traceback__)
        lines = [f", line {frame.lineno}" for frame in frames if frame.filename == file]
        reason = str(error) or type(error).__name__
        if (moved := _MOVED.get(_missing(error))) is not None:
            reason += f", it is {moved} now"
        if isinstance(error, SystemExit):
            reason = f"it ends the program ({reason})"
        raise UserError(f"{file}{''.join(lines[-1:])}: {reason}; mend the config file") from error
    if not isinstance(config, ConfigDict):
        raise UserError(f"{file}: get_config() must return a ConfigDict, as configs/demo.py does")
    config.lock()
    return override(config, overrides)


def _missing(error: BaseException) -> str:
    """The dotted name of what an import, or a look into a module, didn't find; empty: neither."""
    if isinstance(error, ImportError):
        name = re.search(r"cannot import name '(\w+)'", str(error))
        return f"{error.name}.{name[1]}" if name else str(error.name)
    if isinstance(error, AttributeError):
        return f"{getattr(error.obj, '__name__', '')}.{error.name}"
    return ""


def override(config: ConfigDict, overrides: Sequence[str]) -> ConfigDict:
    """`config` with `--config.key=value` overrides applied in place; raises UserError."""
    for argument in overrides:
        if not argument.startswith("--config."):
            raise UserError(f"{argument}: unknown argument; config values are --config.KEY=VALUE")
    values = flags.FlagValues()
    arguments = ["astra", *overrides]
    try:
        config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=arguments)
        rest = values(arguments)
    except (AttributeError, KeyError) as error:
        # Nested errors arrive as the repr of a repr.
        key = str(error).replace("\\n", "; ").replace("\\", "").replace("'", "").strip('"')
        raise UserError(f"config has no key {key}; {_MEND}") from error
    except (flags.Error, ValueError, TypeError, IndexError, SyntaxError) as error:
        message = str(error).strip().splitlines()[-1]
        raise UserError(f"config: {message}; {_MEND}") from error
    if len(rest) > 1:
        raise UserError(f"{rest[1]}: unknown argument; config values are --config.KEY=VALUE")
    return values.config


def freeze(config: ConfigDict) -> FrozenConfigDict:
    """A copy of `config` that nobody can change."""
    copied = copy_config(config)
    # A tuple's mappings would stay open. What is none of them is for the data's settings to judge.
    if isinstance(copied.data.sources, list | tuple):
        with copied.ignore_type():
            copied.data.sources = tuple(
                MappingProxyType(dict(source))
                if isinstance(source, Mapping | ConfigDict)
                else source
                for source in copied.data.sources
            )
    return FrozenConfigDict(copied)


def copy_config(config: ConfigDict) -> ConfigDict:
    """A copy that has its own sections, where `ConfigDict(config)` has those of `config`."""
    return ConfigDict(config).copy_and_resolve_references()
