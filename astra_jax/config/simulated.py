"""Simulated matches: how many and how hard they are, and what their files hold."""

from ml_collections import ConfigDict

EMBEDDING_WIDTHS: tuple[int, ...] = (24, 16, 16)
MELS = 16
FRAMES_PER_SECOND = 16
"""A sixth of the real rate: VGGish's images are what costs time on a CPU."""
SIMULATED_SPLITS: tuple[str, ...] = ("train", "valid", "test")


def simulated_matches() -> ConfigDict:
    """`config.simulation` of the demo."""
    return ConfigDict(
        {
            "seed": 1,
            "train_matches": 60,
            "valid_matches": 8,
            "test_matches": 12,
            "half_seconds": 600,
            "rarity_exponent": 0.3,
            "density": 1.6,
            "jitter_seconds": 0.15,
            "jittered_seconds": 0.9,
            "signals": {
                "alarm": 5.0,
                "opening": 6.0,
                "side": 6.0,
                "context": 6.0,
                "drift": 1.0,
                "not_shown": 0.15,
                "sound_db": 4.0,
                "sound_not_shown_db": 12.0,
                "sound_noise_db": 2.0,
            },
        }
    )


def simulated_data() -> ConfigDict:
    """The part of `config.data` that says what simulated matches hold."""
    return ConfigDict(
        {
            "sources": (
                {
                    "pattern": "{half}_simulated_embeddings.npy",
                    "rows_per_second": 1.0,
                    "widths": EMBEDDING_WIDTHS,
                    "normalize": False,  # they are made at a scale at which a small ASTRA learns
                },
            ),
            "audio": {
                "pattern": "audio{half}.npy",
                "frames_per_second": FRAMES_PER_SECOND,
                "mels": MELS,
                "floor_db": -80.0,
            },
            "splits": {name: f"{name}.txt" for name in SIMULATED_SPLITS},
        }
    )
