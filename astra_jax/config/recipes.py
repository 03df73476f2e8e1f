"""Recipes on the paper's config: little data, the ensemble's members, any model at demo size."""

from ml_collections import ConfigDict

from astra_jax.config.clock import clock_source
from astra_jax.config.defaults import paper
from astra_jax.config.simulated import simulated_data, simulated_matches
from astra_jax.errors import UserError

MEMBERS: tuple[str, ...] = ("full", "visual", "no_focal", "no_uncertainty")
"""The models of the paper's ensemble (section 4.4): ASTRA, and ASTRA without one of its parts."""


def parse_variant(argument: str, names: tuple[str, ...], default: str) -> tuple[str, bool]:
    """Reads the argument of a config: `NAME`, `NAME,demo`, or `demo` for the default's.

    Returns:
        The name, and whether the demo's size is asked for.

    Raises:
        UserError: the argument is none of these.
    """
    name, _, rest = (f"{default},demo" if argument == "demo" else argument).partition(",")
    if name not in names or rest not in ("", "demo"):
        raise UserError(f"there are {', '.join(names)}, and NAME,demo, which runs without data")
    return name, rest == "demo"


def member(name: str) -> ConfigDict:
    """The config of one of `MEMBERS`; "visual" has no audio, the others lack what they say."""
    config = paper()
    if name == "visual":
        with config.ignore_type():
            config.data.audio = None
    config.loss.focal = name != "no_focal"
    config.model.uncertainty = name != "no_uncertainty"
    return config


def at_demo_size(config: ConfigDict) -> ConfigDict:
    """`config` on simulated matches, at a size for two CPU cores; returns it.

    What the model is made of, its augmentation and its losses stay. Clips are shorter, codes and
    queries start on one clock and nothing is dropped out inside the model: in so few steps the
    network meets a clip some ten times.
    """
    config.simulation = simulated_matches()
    audio = config.data.audio is not None
    with config.ignore_type():
        config.data.update(simulated_data())
        if not audio:
            config.data.audio = None
    config.clip.update(seconds=25, stride_seconds=12)
    config.model.update(
        dim=64,
        heads=2,
        feed_forward=128,
        decoder_layers=2,
        dropout=0.0,
        embedding_dropout=0.0,
        head_dropout=0.0,
        codes="sinusoidal",
        class_prior=0.02,
        aligned_attention=True,
        audio={"segment_frames": 16, "channels": (4, 8, 8, 8, 16, 16), "hidden": 32},
    )
    config.optimizer.update(learning_rate=8e-4, schedule="step", warmup_epochs=1, amsgrad=False)
    config.inference.stride_seconds = 5
    config.training.update(batch_size=16, epochs=14, validate_every_epochs=7)
    return config


def small_data() -> ConfigDict:
    """What serves tens of matches, or features that say little (docs/small_data.md), on `paper`.

    Batches of 32 clips; sizes of the model are the paper's still, for the config to choose.
    """
    config = paper()
    with config.ignore_type():
        config.data.sources = (
            *(
                # No column of theirs says anything of a class by itself.
                {key: source[key] for key in source if key != "normalize"} | {"shortcut_columns": 0}
                for source in config.data.sources
            ),
            clock_source(),
        )
    config.clip.random_starts = True
    config.mixup.kind = "none"
    config.model.update(
        embedding_dropout=0.1,
        head_dropout=0.1,
        temporal_dropout=0.0,
        temporal_switch=0.0,
        codes="sinusoidal",
        class_prior=0.02,
        aligned_attention=True,
        shortcut_seconds=32.0,
    )
    config.loss.focal = False
    config.optimizer.update(learning_rate=1e-3, schedule="step", warmup_epochs=1, amsgrad=False)
    config.training.update(batch_size=32, average_decay=0.99)
    # Without the focal factor the probabilities of rare classes are small, and true.
    config.inference.update(overlap="mean", threshold=0.003)
    return config
