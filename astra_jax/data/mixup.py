"""Mixup's epoch plan: which clips, which partners, which lambda (the rule: `mixing`).

The plan is a pure function over clip ids, so that a batch depends on the seed and its number alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from astra_jax.errors import UserError

KINDS = ("balanced", "plain", "none")
SLOTS = 2
"""Clips that the balanced queue keeps a class."""


@dataclass(frozen=True)
class MixupConfig:
    """`kind`: how partners are drawn, one of `KINDS`; lambda comes from Beta(alpha, beta)."""

    kind: str
    alpha: float
    beta: float

    @classmethod
    def from_config(cls, mixup: Mapping[str, Any]) -> "MixupConfig":
        """Reads the config's section `mixup`; UserError for another kind."""
        _check_kind(mixup["kind"])
        return cls(**mixup)


@dataclass(frozen=True, eq=False)
class ClipTable:
    """Clips of a training split, by id.

    `pairs` are two consecutive clips of a half of which an epoch takes one (an odd last clip is
    there twice); `holds` says which classes a clip's targets hold, column 0 being background (no
    column where nobody asks: only the balanced queue does).
    """

    pairs: Int[np.ndarray, "pair 2"]
    holds: Bool[np.ndarray, "clip class"]


@dataclass(frozen=True, eq=False)
class EpochPlan:
    """One epoch: clip ids of every batch, those of their partners, and a lambda a batch."""

    own: Int[np.ndarray, "step batch"]
    partner: Int[np.ndarray, "step batch"]
    lam: Float[np.ndarray, "step"]


def pair_clips(clips_per_half: Int[np.ndarray, "half"]) -> Int[np.ndarray, "pair 2"]:
    """Ids of consecutive clips two by two, ids running through the halves.

    Differs from the published implementation: pairs never straddle halves, and the odd last clip
    of a half is a pair of its own.
    """
    pairs = []
    first = 0
    for count in clips_per_half:
        ids = np.arange(first, first + count)
        pairs.append(np.stack([ids[::2], np.append(ids, ids[-1:])[1::2]], axis=1))
        first += count
    return np.concatenate(pairs) if pairs else np.zeros((0, 2), np.int64)


def plan(
    seed: int,
    epoch: int,
    batch_size: int,
    clips: ClipTable,
    kind: str = "balanced",
    alpha: float = 1.0,
    beta: float = 0.6,
) -> EpochPlan:
    """The batches of one epoch, a function of its arguments alone.

    Visits every pair once in a random order and takes one of its two clips; an incomplete last
    batch is dropped. Lambda, one a batch, comes from Beta(alpha, beta). Partners are drawn from
    the balanced queue (`balanced_partners`; paper, section 3.4), uniformly over the epoch's clips
    ("plain"), or there are none ("none": every clip is its own partner and lambda is 1).
    Own clips and their order are the same for all three kinds. Errors: UserError for another kind.
    """
    _check_kind(kind)
    order, lambdas, partners = (
        np.random.default_rng(np.random.SeedSequence([seed, epoch, stream])) for stream in range(3)
    )
    pairs = order.permutation(clips.pairs)
    picked = pairs[np.arange(len(pairs)), order.integers(2, size=len(pairs))]
    steps = len(pairs) // batch_size
    own = picked[: steps * batch_size].reshape(steps, batch_size)
    if kind == "none":
        return EpochPlan(own, own, np.ones(steps))
    lam = lambdas.beta(alpha, beta, size=steps)
    if kind == "plain":
        return EpochPlan(own, partners.choice(picked, size=own.shape), lam)
    return EpochPlan(own, balanced_partners(own, clips.holds, partners), lam)


def _check_kind(kind: Any) -> None:
    if kind not in KINDS:
        raise UserError(f"config.mixup.kind: {kind!r}, it must be one of {', '.join(KINDS)}")


def balanced_partners(
    own: Int[np.ndarray, "step batch"],
    holds: Bool[np.ndarray, "clip class"],
    rng: np.random.Generator,
) -> Int[np.ndarray, "step batch"]:
    """Partners from a queue of two slots a class, simulated over clip ids.

    A partner is a class drawn uniformly, then one of its slots. After a batch is paired its own
    clips enter: of a class that two or more of them hold the first two take both slots, of one
    that a single clip holds it takes a random slot. A class that no clip holds has no slot.
    Differs from the published implementation: its slots start empty, as background at 0 dB; ours
    start with two clips drawn of each class.
    """
    classes = np.flatnonzero(holds.any(axis=0))
    slots = np.empty((len(classes), SLOTS), np.int64)
    for index, column in enumerate(classes):
        holders = np.flatnonzero(holds[:, column])
        slots[index] = rng.choice(holders, size=SLOTS, replace=len(holders) < SLOTS)
    partners = np.empty_like(own)
    held = holds[own][..., classes]  # step clip class
    counts = held.sum(axis=1)
    # The first clip that holds each class, and the second one where there is one.
    first = held.argmax(axis=1)
    np.put_along_axis(held, first[:, None], False, axis=1)
    first, second = (
        np.take_along_axis(own, of_batch, axis=1) for of_batch in (first, held.argmax(axis=1))
    )
    for step in range(len(own)):
        drawn = rng.integers(len(classes), size=own.shape[1])
        partners[step] = slots[drawn, rng.integers(SLOTS, size=own.shape[1])]
        singles = rng.integers(SLOTS, size=len(classes))
        alone, several = np.flatnonzero(counts[step] == 1), np.flatnonzero(counts[step] > 1)
        slots[alone, singles[alone]] = first[step, alone]
        slots[several, 0], slots[several, 1] = first[step, several], second[step, several]
    return partners
