"""Two runs that may predict together: other sources, other widths, one without audio."""

from pathlib import Path

from helpers.tiny import tiny_config
from ml_collections import ConfigDict

AUDIO = {"pattern": "audio{half}.npy", "frames_per_second": 10, "mels": 16, "floor_db": -80.0}


def full_config(root: Path) -> ConfigDict:
    """Two sources, audio and uncertainty."""
    config = tiny_config(root)
    with config.ignore_type():
        config.data.audio = dict(AUDIO)
        config.model.audio.update(segment_frames=16, channels=(2,) * 6, hidden=4)
    config.model.encoder_layers = 1
    config.inference.batch_size = 16  # a half's windows are one batch
    return config


def visual_config(root: Path) -> ConfigDict:
    """One of the sources, no audio, no uncertainty, and another width."""
    config = tiny_config(root)
    with config.ignore_type():
        config.data.sources = config.data.sources[:1]
    config.model.update(dim=8, encoder_layers=1, uncertainty=False)
    config.loss.focal = False
    config.inference.batch_size = 16
    return config
