"""A small ASTRA on simulated matches: needs no files.

Command:  python train.py --config configs/demo.py --workdir runs/demo
          python evaluate.py --workdir runs/demo --split test --out runs/demo/test
Size:     237,166 parameters, 14 epochs of 187 steps
Expected: 76.1 tight and 82.4 loose Average-mAP on twelve matches it never saw (README)
"""

from ml_collections import ConfigDict

from astra_jax.config import paper
from astra_jax.config.recipes import at_demo_size


def get_config() -> ConfigDict:
    """The paper's config at the demo's size; augmentation of single rows only slows it down."""
    config = at_demo_size(paper())
    config.mixup.update(alpha=8.0, beta=0.6)
    config.model.update(temporal_dropout=0.0, temporal_switch=0.0)
    return config
