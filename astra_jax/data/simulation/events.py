"""What happens in a simulated match: a chain of events after measured SoccerNet statistics."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from astra_jax.config.classes import CLASSES
from astra_jax.data.simulation.statistics import Statistics

SHORTEST_GAP_SECONDS = 3.5
"""Added to every gap: patterns any closer would hide one another at one row a second."""

# Share of the rates mixed into every transition row: no class is out of the chain's reach.
_SMOOTHING = 0.02


@dataclass(frozen=True)
class Chain:
    """An event process: who follows whom, how soon, and what is on the screen.

    A gap is drawn from its class's quantiles, times `gap_scale`, plus `SHORTEST_GAP_SECONDS`.
    """

    transitions: Float[np.ndarray, "class class"]
    start: Float[np.ndarray, "class"]
    levels: Float[np.ndarray, "level"]
    gap_quantiles: Float[np.ndarray, "class level"]
    gap_scale: float
    not_shown: Float[np.ndarray, "class"]


@dataclass(frozen=True)
class HalfEvents:
    """The events of one simulated half in time order."""

    seconds: Float[np.ndarray, "event"]
    class_ids: Int[np.ndarray, "event"]
    visible: Bool[np.ndarray, "event"]
    at_home: Bool[np.ndarray, "event"]


def build_chain(
    statistics: Statistics, rates: Float[np.ndarray, "class"], half_seconds: float
) -> Chain:
    """The chain nearest to the measured transitions and gaps that yields `rates` (events a second).

    Where transitions and rates disagree the rates win: the flow matrix is scaled, rows and
    columns in turn (iterative proportional fitting), until both its margins are the rates; the
    gaps are scaled until their mean gives the rates' sum. The first event of a half comes from
    `statistics.start`, so the chain owes that much less of its class.
    """
    expected = np.maximum(rates * half_seconds - statistics.start, 0.2 * rates * half_seconds)
    shares = expected / expected.sum()
    flow = (1 - _SMOOTHING) * statistics.transitions + _SMOOTHING * shares
    for _ in range(500):
        flow *= (shares / flow.sum(1))[:, None]
        flow *= shares / flow.sum(0)
    return Chain(
        transitions=flow / flow.sum(1, keepdims=True),
        start=statistics.start,
        levels=statistics.levels,
        gap_quantiles=statistics.gap_quantiles,
        gap_scale=_gap_scale(statistics, shares, half_seconds / expected.sum()),
        not_shown=statistics.not_shown,
    )


def draw_events(chain: Chain, half_seconds: float, rng: np.random.Generator) -> HalfEvents:
    """One half's events, from kick-off to the clock's end."""
    seconds: list[float] = []
    classes: list[int] = []
    now, current = rng.uniform(0.0, 0.5), rng.choice(len(CLASSES), p=chain.start)
    while now < half_seconds:
        seconds.append(now)
        classes.append(int(current))
        gap = _gaps(chain.levels, chain.gap_quantiles[current], rng.random())
        now += SHORTEST_GAP_SECONDS + float(gap) * chain.gap_scale
        current = rng.choice(len(CLASSES), p=chain.transitions[current])
    indices = np.array(classes)
    return HalfEvents(
        seconds=np.array(seconds),
        class_ids=indices,
        visible=rng.random(len(indices)) >= chain.not_shown[indices],
        at_home=rng.random(len(indices)) < 0.5,
    )


def _gaps(
    levels: Float[np.ndarray, "level"],
    quantiles: Float[np.ndarray, "level"],
    at: float | Float[np.ndarray, "draw"],
) -> float | Float[np.ndarray, "draw"]:
    """Seconds at quantile levels `at`: linear between the measured ones, ends run on by a half."""
    levels = np.concatenate([[0.0], levels, [1.0]])
    ends = [0.5 * quantiles[0]], [1.5 * quantiles[-1] - 0.5 * quantiles[-2]]
    return np.interp(at, levels, np.concatenate([ends[0], quantiles, ends[1]]))


def _gap_scale(
    statistics: Statistics, shares: Float[np.ndarray, "class"], mean_seconds: float
) -> float:
    """The factor on all gaps that makes their mean over the chain's events `mean_seconds`."""
    grid = (np.arange(1000) + 0.5) / 1000
    gaps = np.stack([_gaps(statistics.levels, row, grid) for row in statistics.gap_quantiles])
    return float((mean_seconds - SHORTEST_GAP_SECONDS) / (shares @ gaps.mean(1)))
