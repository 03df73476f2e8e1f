"""Small models: their parameters and clips drawn by NumPy, their programs compiled once."""

import functools
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from astra_jax.devices import make_mesh, replicated
from astra_jax.model import (
    ASTRA,
    ModelConfig,
    Predictions,
    SourceShape,
    SpottingModel,
    VGGishConfig,
    abstract_params,
)
from astra_jax.runs.folder import RunFolder
from astra_jax.runs.settings import Settings, resolve
from astra_jax.training.losses import LossConfig

TINY = ModelConfig(
    sources=(SourceShape(4, (3,)),),
    positions=4,
    num_classes=2,
    dim=6,
    heads=1,
    feed_forward=8,
    encoder_layers=1,
    decoder_layers=1,
)
SMALL = ModelConfig(
    sources=(SourceShape(10, (6, 4)), SourceShape(20, (3,))),
    audio=VGGishConfig(frames=1000, mels=16, channels=(2, 2, 3, 3, 4, 4), hidden=8),
    positions=20,
    dim=16,
    heads=2,
    feed_forward=32,
    encoder_layers=3,
    decoder_layers=2,
)
"""Two sources and audio, in encoder layers of 4, 2 and 1 segments."""
LOSS = LossConfig(focal=True, classification_weight=100.0, displacement_weight=1.0, weight_radius=1)


def settings_of(config: ConfigDict) -> Settings:
    """What the rooms are given of a config whose matches need not be there."""
    config = ConfigDict(config)
    if config.data.root is None and config.simulation is None:
        config.data.root = "matches"
    return Settings.from_config(resolve(config, RunFolder(Path("run"))))


@functools.cache
def shapes_of(model: SpottingModel) -> Any:
    """Shapes and types of the parameters."""
    return abstract_params(model, replicated(make_mesh()))


def random_like(shapes: Any, seed: int = 1) -> Any:
    """Arrays of these shapes, of about 0.3 and of either sign."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: 0.3 * rng.normal(size=leaf.shape).astype(np.float32), shapes)


def random_params(model: SpottingModel, seed: int = 1) -> Any:
    """Parameters of a model: compiling its own start takes longer than most tests."""
    return random_like(shapes_of(model), seed)


def random_inputs(config: ModelConfig, clips: int, seed: int = 0) -> dict[str, Any]:
    """Clips without masks."""
    rng = np.random.default_rng(seed)
    log_mel = None
    if config.audio is not None:
        size = (clips, config.audio.frames, config.audio.mels)
        log_mel = rng.normal(-40, 10, size).astype(np.float32)
    features = tuple(
        rng.normal(size=(clips, source.rows, source.width)).astype(np.float32)
        for source in config.sources
    )
    return {"features": features, "log_mel": log_mel}


def full_masks(inputs: dict[str, Any]) -> dict[str, Any]:
    """Masks of clips that lack nothing."""
    masks: dict[str, Any] = {
        "features": tuple(np.ones(f.shape[:2], bool) for f in inputs["features"])
    }
    if inputs["log_mel"] is not None:
        masks["log_mel"] = np.ones(inputs["log_mel"].shape[:2], bool)
    return masks


def random_batch(config: ModelConfig, clips: int, share: float = 0.3) -> dict[str, Any]:
    """Clips, and targets in this share of positions and classes."""
    rng = np.random.default_rng(0)
    targets = (clips, config.positions, config.num_classes + 1)
    return random_inputs(config, clips) | {
        "class_targets": (rng.random(targets) < share).astype(np.float32),
        "displacements": (3 * rng.normal(size=targets)).astype(np.float32),
        "displacement_mask": rng.random(targets) < share,
    }


@functools.partial(jax.jit, static_argnums=0)
def predict(config: ModelConfig, params: Any, inputs: dict[str, Any]) -> Predictions:
    """What `ASTRA(config)` predicts."""
    return ASTRA(config).apply({"params": params}, inputs)
