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

import contextlib  # noqa: E402
import functools  # noqa: E402
import gc  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import pytest  # noqa: E402
from helpers import checked_types  # noqa: E402

checked_types.install()


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


@pytest.fixture(scope="module")
def programs_once(compile_once: None) -> Iterator[None]:
    """Runs of one config in a module share their traced programs, and the state they start from.

    Tracing a tiny run takes longer than the run, each time that it is started.
    """
    import jax

    from astra_jax.runs import members
    from astra_jax.spotting import inference
    from astra_jax.training import loop

    optimizers: dict[str, Any] = {}
    states: dict[Any, Any] = {}
    programs: dict[Any, Any] = {}
    make_optimizer, init_state = loop.make_optimizer, loop.init_state
    begin = inference.Predictor.__init__

    def optimizer_once(config: Any, steps_per_epoch: int) -> Any:
        read = (config.optimizer, config.training.epochs, config.training.batch_size)
        return optimizers.setdefault(
            f"{read} {steps_per_epoch}", make_optimizer(config, steps_per_epoch)
        )

    def state_once(*args: Any, **kwargs: Any) -> Any:
        key = (*args, *kwargs.values())
        if key not in states:
            state = init_state(*args, **kwargs)
            shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
            states[key] = jax.device_get(state), shardings
        # A copy: the state is donated.
        return jax.device_put(*states[key])

    def begin_once(self: Any, config: Any, model: Any, params: Any) -> None:
        begin(self, config, model, params)
        self._apply = programs.setdefault(model, self._apply)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "make_optimizer", optimizer_once)
        patch.setattr(loop, "init_state", state_once)
        patch.setattr(loop, "make_train_step", functools.cache(loop.make_train_step))
        patch.setattr(inference.Predictor, "__init__", begin_once)
        # Shapes: a third of the time that a tiny evaluation takes.
        patch.setattr(members, "abstract_params", functools.cache(members.abstract_params))
        yield


@contextlib.contextmanager
def _first_device() -> Iterator[None]:
    import jax

    from astra_jax.spotting import inference
    from astra_jax.training import loop, state

    def mesh(devices: object = None) -> Any:
        return state.make_mesh(jax.devices()[:1])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "make_mesh", mesh)
        patch.setattr(inference, "make_mesh", mesh)
        yield


@pytest.fixture(scope="module")
def module_on_one_device() -> Iterator[None]:
    """The runs of a module take the first device alone: eight cost several times as much."""
    with _first_device():
        yield


@pytest.fixture
def one_device() -> Iterator[None]:
    """The runs of a test take the first device alone."""
    with _first_device():
        yield


@pytest.fixture
def orbax_may_complain() -> Iterator[None]:
    """For tests in which Orbax fails: what it leaves is taken away, with its complaints, here."""
    yield
    gc.collect()
