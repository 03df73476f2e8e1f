"""Event statistics of real matches, which simulated ones are drawn after."""

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np
from jaxtyping import Float

from astra_jax.config.classes import CLASSES


@dataclass(frozen=True)
class Statistics:
    """Event statistics of real matches, classes in the official order.

    `transitions` holds the probability of the next class, `start` that of a half's first one;
    `gap_quantiles` the quantiles, at `levels`, of the seconds from an event to the next.
    """

    events_per_second: Float[np.ndarray, "class"]
    not_shown: Float[np.ndarray, "class"]
    transitions: Float[np.ndarray, "class class"]
    start: Float[np.ndarray, "class"]
    levels: Float[np.ndarray, "level"]
    gap_quantiles: Float[np.ndarray, "class level"]


@cache
def measured_statistics() -> Statistics:
    """The statistics measured on 100 SoccerNet-v2 matches, embedded in the package."""
    text = (
        resources.files("astra_jax.data.simulation")
        .joinpath("soccernet_statistics.json")
        .read_text()
    )
    raw = json.loads(text)
    follows = raw["transition_probability"]

    def row(name: str) -> Float[np.ndarray, "class"]:
        # "end" is left out: a simulated half ends by the clock.
        values = np.array([follows[name].get(label, 0.0) for label in CLASSES])
        return values / values.sum()

    per_half = np.array([raw["events_per_half"][label] for label in CLASSES])
    return Statistics(
        events_per_second=per_half / raw["half_seconds"]["median"],
        not_shown=np.array([raw["not_shown_rate"][label] for label in CLASSES]),
        transitions=np.stack([row(label) for label in CLASSES]),
        start=row("start"),
        levels=np.array(raw["quantile_levels"]),
        gap_quantiles=np.array([raw["seconds_to_next_event"][label] for label in CLASSES]),
    )


def boosted_rates(
    statistics: Statistics, rarity_exponent: float, density: float
) -> Float[np.ndarray, "class"]:
    """Events a second of each class: measured rates to the power `rarity_exponent`.

    They sum to `density` times the measured sum. An exponent in (0, 1] keeps the order of
    frequencies; 1 keeps the frequencies, less makes rare classes commoner.
    """
    flattened = statistics.events_per_second**rarity_exponent
    return flattened / flattened.sum() * statistics.events_per_second.sum() * density
