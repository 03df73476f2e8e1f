"""A small ASTRA on simulated matches: needs no files.

Command:  python train.py --config configs/demo.py --workdir runs/demo
          python evaluate.py --workdir runs/demo --split test --out runs/demo/test
Size:     237,166 parameters, 14 epochs of 187 steps
Expected: 74.7 tight and 80.5 loose Average-mAP on twelve matches it never saw (README)
"""

from ml_collections import ConfigDict

from astra_jax.data import simulation
from astra_jax.defaults import paper


def get_config() -> ConfigDict:
    """The paper's config at a size for two CPU cores; shorter clips, faster to align."""
    config = paper()
    config.simulation = simulation.default_config()
    with config.ignore_type():
        config.data.update(simulation.data_config())
    config.clip.update(seconds=25, stride_seconds=12)
    config.mixup.update(alpha=8.0, beta=0.6)
    config.model.update(
        dim=64,
        heads=2,
        feed_forward=128,
        decoder_layers=2,
        codes="sinusoidal",
        class_prior=0.02,
        aligned_attention=True,
        audio={"segment_frames": 16, "channels": (4, 8, 8, 8, 16, 16), "hidden": 32},
    )
    # In so few steps the network meets a clip some ten times: dropout and augmentation of single
    # rows only slow it down.
    config.model.update(
        dropout=0.0,
        embedding_dropout=0.0,
        head_dropout=0.0,
        temporal_dropout=0.0,
        temporal_switch=0.0,
    )
    config.optimizer.update(learning_rate=8e-4, schedule="step", warmup_epochs=1, amsgrad=False)
    config.inference.stride_seconds = 5
    config.training.update(batch_size=16, epochs=14, validate_every_epochs=7)
    return config
