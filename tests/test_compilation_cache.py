"""Compiled programs are kept for the next process, within bounds and without a word."""

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.faults import command
from helpers.processes import environment
from helpers.tiny import tiny_config, write_data

from astra_jax.config.saved import digest, may_differ
from astra_jax.runs import compilation_cache
from astra_jax.runs.compilation_cache import keeps_programs, remove_oldest

SETTINGS = (
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)

SCRIPT = """
import json, sys
import jax
from helpers.faults import COMPONENTS
from astra_jax.cli.main import main

seen = dict.fromkeys(("hits", "misses"), 0)
def note(event, **about):
    for kind in seen:
        seen[kind] += event == f"/jax/compilation_cache/cache_{kind}"
jax.monitoring.register_event_listener(note)
assert main(sys.argv[1:], COMPONENTS) == 0
print(json.dumps(list(seen.values())))
"""
OTHERS = ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS")


def settings() -> list[object]:
    return [getattr(jax.config, name) for name in SETTINGS]


@pytest.fixture(autouse=True)
def no_other_cache(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    assert not jax.config.jax_compilation_cache_dir


def entries(root: Path) -> list[Path]:
    return [path for path in root.rglob("*-cache") if path.is_file()]


def compile_anew(number: int) -> float:
    """Compiles one program, of this number, though JAX may have compiled it before."""
    compiled = jax.jit(lambda x: jnp.sin(x) * number)
    return float(np.asarray(compiled(np.arange(7, dtype=np.float32))).sum())


def test_a_second_process_trains_and_evaluates_without_compiling(tmp_path):
    root = write_data(tmp_path / "data")
    variables = {k: v for k, v in environment(tmp_path).items() if k not in OTHERS}

    def counts(*arguments: str) -> list[int]:
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, *arguments],
            env=variables,
            capture_output=True,
            text=True,
            timeout=200,
        )
        assert done.returncode == 0, done.stderr
        # XLA's own complaint where it takes its program for another processor's.
        assert "SIGILL" not in done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    hits, misses = counts(*command(root, tmp_path / "first"))
    assert hits == 0 and misses >= 2  # the step and the forward pass
    assert len(entries(tmp_path / "user")) == misses
    assert counts(*command(root, tmp_path / "second")) == [misses, 0]
    places = ["--workdir", str(tmp_path / "first"), "--out", str(tmp_path / "out")]
    hits, misses = counts("evaluate", "--split", "test", *places)
    assert hits >= 1 and misses == 0


def test_programs_are_kept_and_read_and_jax_is_left_as_it_was(tmp_path):
    before = settings()
    for folder in (None, str(tmp_path / "named")):
        with keeps_programs(folder):
            first = compile_anew(1)
        kept = entries(tmp_path / ("user" if folder is None else "named"))
        assert kept and settings() == before
        with keeps_programs(folder):
            assert compile_anew(1) == first
        assert entries(tmp_path / ("user" if folder is None else "named")) == kept
    compile_anew(2)
    assert entries(tmp_path / "named") == kept


def test_nothing_is_kept_where_it_is_off_or_by_several_processes_that_were_told_of_no_folder(
    tmp_path, monkeypatch
):
    with keeps_programs(""):
        compile_anew(3)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with keeps_programs(None):
        compile_anew(4)
    assert not list(tmp_path.iterdir())
    with keeps_programs(str(tmp_path / "named")):
        compile_anew(5)
    assert entries(tmp_path / "named")


def test_a_cache_that_jax_has_already_serves(tmp_path):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "own"))
    try:
        before = settings()
        with keeps_programs(str(tmp_path / "ours")):
            assert settings() == before
    finally:
        jax.config.update("jax_compilation_cache_dir", None)
    assert not (tmp_path / "ours").exists()


def test_where_nothing_can_be_written_nothing_is_said(tmp_path):
    (tmp_path / "user").write_text("")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for folder in (None, str(tmp_path / "user")):
            before = settings()
            with keeps_programs(folder):
                assert settings() == before
                compile_anew(6)


def test_an_entry_that_was_cut_short_is_compiled_and_written_again(tmp_path):
    with keeps_programs(str(tmp_path)):
        first = compile_anew(7)
    kept = {path: path.read_bytes() for path in entries(tmp_path)}
    for path, content in kept.items():
        path.write_bytes(content[: len(content) // 2])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with keeps_programs(str(tmp_path)):
            assert compile_anew(7) == first
    assert entries(tmp_path) == list(kept)
    for path, content in kept.items():
        assert abs(len(path.read_bytes()) - len(content)) < 100
    with pytest.warns(UserWarning, match="another"), keeps_programs(str(tmp_path)):
        warnings.warn("another", stacklevel=1)


def test_a_processor_of_other_flags_has_a_folder_of_its_own(tmp_path, monkeypatch):
    for flags in ("sse", "sse avx"):
        monkeypatch.setattr(compilation_cache, "processor", lambda flags=flags: flags)
        with keeps_programs(str(tmp_path)):
            compile_anew(8)
    first, second = tmp_path.iterdir()
    assert len(entries(first)) == len(entries(second)) == 1
    assert f"jax{jax.__version__}-" in first.name and "-cpu-" in first.name


def test_what_was_unused_for_longest_is_taken_away(tmp_path):
    folders = [tmp_path / f"jax0.{i}-jaxlib0.{i}-cpu-0" for i in range(2)]
    for i in range(6):
        path = folders[i % 2] / "inner" / f"{i}-cache"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(100))
        os.utime(path, (1000 + i, 0))
    others = tmp_path / "thesis" / "draft.txt"
    others.parent.mkdir()
    others.write_bytes(bytes(1000))
    remove_oldest(tmp_path, 600)
    assert len(entries(tmp_path)) == 6
    remove_oldest(tmp_path, 350)
    assert sorted(path.name for path in entries(tmp_path)) == ["3-cache", "4-cache", "5-cache"]
    assert others.exists()


def test_a_run_may_go_on_with_another_cache(tmp_path):
    config, other = tiny_config(tmp_path), tiny_config(tmp_path)
    other.training.compilation_cache = "elsewhere"
    assert may_differ("training.compilation_cache") and digest(config) == digest(other)
