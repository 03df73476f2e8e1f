"""ASTRA for tens of matches: SoccerNet's visual embeddings, a small model, what helps with little.

Command:  python train.py --config configs/astra_small_data.py --config.data.root=SOCCERNET
              --config.data.splits.train=MY_MATCHES.txt
Data:     as configs/astra.py, without audio; MY_MATCHES.txt lists one league/season/match a line.
Expected: not measured: the recipe was found on the commentary features of configs/commentary.py
          (docs/small_data.md), nobody has trained it on SoccerNet's embeddings yet.
"""

from ml_collections import ConfigDict

from astra_jax.config import small_data


def get_config() -> ConfigDict:
    """The recipe for little data at a quarter of the paper's width."""
    config = small_data()
    with config.ignore_type():
        config.data.audio = None
    config.model.update(dim=128, heads=4, feed_forward=512, encoder_layers=2, decoder_layers=1)
    config.training.update(epochs=20)
    return config
