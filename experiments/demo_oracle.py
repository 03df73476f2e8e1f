"""An oracle for simulated matches: it knows the patterns, the noise and the event rates.

For each class, visibility and position it computes the log likelihood ratio of
"this event happened here" against "nothing happened" (matched filter after the inverse noise
covariance) and adds the log of the prior rate. Events are explained away one after the other, as
their patterns overlap; the score of a spot is its posterior among the alternatives nearby.
"""

import itertools
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from astra_jax.config.simulated import EMBEDDING_WIDTHS, FRAMES_PER_SECOND, MELS
from astra_jax.data.simulation.events import HalfEvents
from astra_jax.data.simulation.signals import (
    DRIFT_DIRECTIONS,
    EMBEDDING_SCALE,
    FRAME_NOISE_DB,
    LOUDNESS_DRIFT_DB,
    Patterns,
    SignalSpec,
    clean_signal,
)
from astra_jax.data.simulation.writer import SimulationSpec, world

_REACH = 13  # rows to each side of an event that its pattern touches
_NEARBY = 5  # positions to each side among which an event's posterior is shared
_PHASES = (0.25, 0.75)  # seconds into the row, at the middle of its two positions
_LEAST_LOG_ODDS = -2.0  # a weaker candidate is not kept


@dataclass(frozen=True)
class Oracle:
    """Pattern bank and noise model. A hypothesis is (class, visible), flattened."""

    bank: Float[np.ndarray, "phase hypothesis offset column"]
    precisions: Float[np.ndarray, "column row row"]
    bias: Float[np.ndarray, "phase hypothesis"]

    @classmethod
    def build(cls, spec: SimulationSpec) -> "Oracle":
        """From the spec that the matches were written with."""
        chain, patterns = world(spec)
        hypotheses = list(itertools.product(range(len(spec.rates)), (True, False)))
        bank = np.stack(
            [[_pattern(patterns, spec.signals, p, *h) for h in hypotheses] for p in _PHASES]
        )
        precisions = _precisions(spec)
        first = spec.half_seconds // 2 - _REACH
        block = precisions[:, first : first + 2 * _REACH + 1, first : first + 2 * _REACH + 1]
        energy = np.einsum("phoc,coq,phqc->ph", bank, block, bank, optimize=True)
        shown = np.array([[1 - hidden, hidden] for hidden in chain.not_shown])
        # Half a second a position.
        prior = np.repeat(spec.rates / 2, 2) * np.maximum(shown, 1e-9).ravel()
        return cls(bank, precisions, np.log(prior) - energy / 2)

    def scores(
        self, observed: Float[np.ndarray, "row column"]
    ) -> Float[np.ndarray, "position class"]:
        """Posterior of each class at each position (2 a row), from embeddings and decibels."""
        pictures = sum(EMBEDDING_WIDTHS)
        scales = np.repeat([EMBEDDING_SCALE, 1.0], [pictures, observed.shape[1] - pictures])
        residual = (observed - observed.mean(0)) / scales
        events: list[tuple[int, int]] = []
        while found := self._strongest(residual):
            for event in found:
                self._add(residual, event, -1.0)
            events += found
        dense = np.zeros((2 * len(observed), self.bank.shape[1] // 2))
        for last_round in (False, False, True):
            for index, event in enumerate(events):
                self._add(residual, event, 1.0)
                start, odds = self._log_odds_near(residual, event[0])
                position, hypothesis = np.unravel_index(odds.argmax(), odds.shape)
                events[index] = (start + int(position), int(hypothesis))
                self._add(residual, events[index], -1.0)
                if last_round:
                    shares = np.exp(odds - np.logaddexp.reduce(np.append(odds, 0.0)))
                    near = dense[start : start + len(odds)]
                    per_class = shares.reshape(len(odds), -1, 2).sum(2)
                    np.maximum(near, per_class, out=near)
        return dense

    def _strongest(self, residual: Float[np.ndarray, "row column"]) -> list[tuple[int, int]]:
        """The best candidates that lie too far apart to overlap: (position, hypothesis)."""
        odds = self._log_odds(residual, 0, 2 * len(residual))
        best = odds.max(1)
        found: list[tuple[int, int]] = []
        while best.max() > _LEAST_LOG_ODDS:
            position = int(best.argmax())
            found.append((position, int(odds[position].argmax())))
            best[max(0, position - 4 * _REACH) : position + 4 * _REACH] = -np.inf
        return found

    def _log_odds_near(
        self, residual: Float[np.ndarray, "row column"], position: int
    ) -> tuple[int, Float[np.ndarray, "position hypothesis"]]:
        first = max(0, position - _NEARBY)
        return first, self._log_odds(
            residual, first, min(position + _NEARBY + 1, 2 * len(residual))
        )

    def _log_odds(
        self, residual: Float[np.ndarray, "row column"], first: int, last: int
    ) -> Float[np.ndarray, "position hypothesis"]:
        """Log posterior odds against "nothing" at positions [first, last)."""
        first_row, rows = first // 2 - _REACH, (last + 1) // 2 - first // 2 + 2 * _REACH
        wanted = np.arange(first_row, first_row + rows)
        inside = (wanted >= 0) & (wanted < len(residual))
        whitened = np.zeros((rows, residual.shape[1]))
        whitened[inside] = np.einsum(
            "crq,qc->rc", self.precisions[:, wanted[inside]], residual, optimize=True
        )
        windows = np.lib.stride_tricks.sliding_window_view(whitened, 2 * _REACH + 1, axis=0)
        flat = windows.transpose(0, 2, 1).reshape(len(windows), -1)
        phases, hypotheses = self.bank.shape[:2]
        odds = np.stack([flat @ bank.reshape(hypotheses, -1).T for bank in self.bank], axis=1)
        odds = (odds + self.bias).reshape(-1, hypotheses)
        return odds[first % phases : first % phases + last - first]

    def _add(
        self, residual: Float[np.ndarray, "row column"], event: tuple[int, int], factor: float
    ) -> None:
        row, phase = divmod(event[0], 2)
        first, last = max(0, row - _REACH), min(len(residual), row + _REACH + 1)
        pattern = self.bank[phase, event[1]]
        residual[first:last] += factor * pattern[first - row + _REACH : last - row + _REACH]


def _pattern(
    patterns: Patterns,
    signals: SignalSpec,
    phase: float,
    action: int,
    visible: bool,
) -> Float[np.ndarray, "offset column"]:
    """What one event adds to the rows around its own: embeddings, then decibels of the second."""
    event = HalfEvents(
        seconds=np.array([_REACH + phase]),
        class_ids=np.array([action]),
        visible=np.array([visible]),
        at_home=np.array([True]),
    )
    seen = np.full(1, 1.0 if visible else signals.not_shown)
    heard = np.full(1, signals.sound_db if visible else signals.sound_not_shown_db)
    rows = np.arange(2 * _REACH + 1, dtype=np.float64)
    tenths = (rows[:, None] + (np.arange(10) + 0.5) / 10).ravel()
    sound = clean_signal(patterns.sound, event, heard, tenths).reshape(len(rows), 10, MELS)
    return np.concatenate([clean_signal(patterns.visual, event, seen, rows), sound.mean(1)], axis=1)


def _precisions(spec: SimulationSpec) -> Float[np.ndarray, "column row row"]:
    """Inverse noise covariance over time of each column; columns count as independent."""
    lags = np.abs(np.subtract.outer(np.arange(spec.half_seconds), np.arange(spec.half_seconds)))
    periods = np.exp(np.linspace(np.log(40), np.log(400), 60))
    slow = np.cos(2 * np.pi * np.arange(spec.half_seconds)[:, None] / periods).mean(1)[lags]
    white = np.eye(spec.half_seconds)
    inverses = []
    for width in EMBEDDING_WIDTHS:
        drift = spec.signals.drift**2 * DRIFT_DIRECTIONS / width
        inverses += [np.linalg.inv(white + drift * slow)] * width
    # The crowd is linear between values a second apart, averaged over a second.
    crowd = sum(c * (lags == lag) for lag, c in enumerate((0.59375, 0.1875, 0.015625)))
    sound = spec.signals.sound_noise_db**2 * crowd + LOUDNESS_DRIFT_DB**2 * slow
    sound += FRAME_NOISE_DB**2 / FRAMES_PER_SECOND * white
    inverses += [np.linalg.inv(sound)] * MELS
    return np.stack(inverses)
