"""The suite runs on eight simulated devices; the flags must be set before jax is imported."""

import os
from importlib import metadata

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Compiling takes longer than running here: LLVM's optimisation is left out (the goldens have it).
_FLAGS = {"xla_force_host_platform_device_count": 8, "xla_backend_optimization_level": 0}
# Saves a seventh of the CPU time (of three files that were tried). XLA ends the process at a flag
# that it doesn't know: this one is set for the versions that were tried.
if metadata.version("jaxlib").startswith("0.10."):
    _FLAGS["xla_cpu_use_fusion_emitters"] = "false"
for flag, value in _FLAGS.items():
    if flag not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --{flag}={value}".strip()

import gc  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from pathlib import Path  # noqa: E402

import pytest  # noqa: E402
from helpers import checked_types  # noqa: E402

checked_types.install()


@pytest.fixture(scope="session", autouse=True)
def own_cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The user's cache folder is not for tests, nor for the processes that they start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def compiled_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where compiled programs are shared, with the processes that a test starts as well."""
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture(scope="module")
def compile_once(compiled_folder: Path) -> Iterator[None]:
    """Runs of one model compile once in a session: compiling takes longer than training them."""
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    values = {
        "jax_compilation_cache_dir": str(compiled_folder),
        "jax_persistent_cache_min_compile_time_secs": 0.1,
    }
    before = {name: getattr(jax.config, name) for name in values}
    for name, value in values.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.fixture
def orbax_may_complain() -> Iterator[None]:
    """For tests in which Orbax fails: what it leaves is taken away, with its complaints, here."""
    gc.freeze()  # what was there before needn't be looked through: that takes long in a session
    yield
    gc.collect()
    gc.unfreeze()
