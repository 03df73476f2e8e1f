"""A small ASTRA on features of one's own: here, what commentators say in 100 real matches.

Command:  python train.py --config configs/commentary.py --config.data.root=COMMENTARY
          python evaluate.py --workdir runs/commentary --split held_out --out runs/commentary/out
Data:     COMMENTARY/league/season/match/ with {1,2}_commentary_words.npy (49 columns, a row a
          second), {1,2}_commentary_pace.npy (6 columns, two rows a second) and Labels-v2.json;
          COMMENTARY/train.txt and held_out.txt list the matches.
Cost:     about 10 minutes on one CPU core (2,400 steps of 32 clips).
Expected: 20.5 loose and 7.3 tight Average-mAP on held_out.txt (docs/small_data.md)

To use features of your own, change `sources`: one entry a file, with its name (`{half}` is 1 or 2,
or another number of `config.data.periods`: (1,) for one recording a match), its rows a second, and
the widths of the embeddings that lie side by side in its columns. `shortcut_columns`: how many of
its first columns say something of a class, or of the time, by themselves (all, where it isn't
given; 0 for embeddings). The clock needs no file. With other `classes` set
`config.inference.suppression.windows_seconds` too: one a class, or one for all.
"""

from ml_collections import ConfigDict

from astra_jax.config import clock_source, small_data


def get_config() -> ConfigDict:
    """The recipe for little data at a size for two CPU cores, on the two commentary files."""
    config = small_data()
    with config.ignore_type():
        config.data.sources = (
            {
                "pattern": "{half}_commentary_words.npy",
                "rows_per_second": 1.0,
                "widths": (49,),
                "shortcut_columns": 17,  # one a class; the others are a latent space
            },
            {"pattern": "{half}_commentary_pace.npy", "rows_per_second": 2.0, "widths": (6,)},
            clock_source(),
        )
        config.data.audio = None
        # Trained on the first 70 matches, the best epoch chosen on the last 10.
        config.data.splits = ConfigDict(
            {"train": "train.txt[:70]", "valid": "train.txt[70:]", "held_out": "held_out.txt"}
        )
    config.model.update(dim=64, heads=2, feed_forward=128, encoder_layers=1, decoder_layers=1)
    config.optimizer.learning_rate = 3e-3
    config.training.update(epochs=10, validate_every_epochs=5)
    # Commentators speak of an event for a while, and not at once.
    config.inference.suppression.window_scale = 4.0
    return config
