"""The mixing rule: lam * own + (1 - lam) * partner where both are there, else the one that is.

Where the bytes that travel don't grow by it, features are mixed on the device: two clips in half
precision are as much as one mixed in single. All else is mixed on the host.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32


def mix(own: dict[str, Any], partner: dict[str, Any], lam: float) -> None:
    """Makes `own` the mix of itself and of `partner`, clip examples or batches of them (`clips`).

    Features and log-mel: where one of the two lacks a row, the other one's, unscaled; present
    where either has it. Class targets: the mix. Displacements: where one of the two has a target,
    that one, where both have, the mix. Sources in half precision stay what they are:
    `finish_mixing` has both.
    """
    weight = np.float32(lam)
    own_masks, partner_masks = own["masks"], partner["masks"]
    for rows in zip(
        own["features"],
        own_masks["features"],
        partner["features"],
        partner_masks["features"],
        strict=True,
    ):
        if rows[0].dtype != np.float16:
            _mix_rows(weight, *rows)
    if "log_mel" in own:
        _mix_rows(
            weight,
            own["log_mel"],
            own_masks["log_mel"],
            partner["log_mel"],
            partner_masks["log_mel"],
        )
    _blend(weight, own["class_targets"], partner["class_targets"])
    _mix_where_present(
        weight,
        own["displacements"],
        own["displacement_mask"],
        partner["displacements"],
        partner["displacement_mask"],
    )


def _mix_rows(
    lam: np.float32,
    own: Float32[np.ndarray, "*batch row column"],
    own_mask: Bool[np.ndarray, "*batch row"],
    partner: Float32[np.ndarray, "*batch row column"],
    partner_mask: Bool[np.ndarray, "*batch row"],
) -> None:
    if own_mask.all() and partner_mask.all():
        _blend(lam, own, partner)
        return
    mask = own_mask[..., None].copy()
    _mix_where_present(lam, own, mask, partner, partner_mask[..., None])
    own_mask[:] = mask[..., 0]


def _mix_where_present(
    lam: np.float32,
    own: Float32[np.ndarray, "*shape"],
    own_mask: Bool[np.ndarray, "*#shape"],
    partner: Float32[np.ndarray, "*shape"],
    mask: Bool[np.ndarray, "*#shape"],
) -> None:
    """The mix where both are present, the one that is where one is, own's value elsewhere."""
    single = np.where(mask & ~own_mask, partner, own)
    _blend(lam, own, partner)
    np.copyto(own, single, where=~(own_mask & mask))
    own_mask |= mask


def _blend(
    lam: np.float32, own: Float32[np.ndarray, "*shape"], partner: Float32[np.ndarray, "*shape"]
) -> None:
    own *= lam
    own += (1 - lam) * partner


def finish_mixing(batch: dict[str, Any]) -> dict[str, Any]:
    """A batch as the model takes it: features in single precision, mixed; for use inside `jax.jit`.

    `batch["partner"]`, where there is one, holds the partners' features and their masks of each
    source that isn't mixed yet, and None for the others; `batch["lam"]` a lambda a clip.
    The same rule as `mix`, to the last bit but for the compiler's choice to round a product and
    its sum once in place of twice.
    """
    features = tuple(rows.astype(jnp.float32) for rows in batch["features"])
    if "partner" not in batch:
        return {**batch, "features": features}
    rest = {key: value for key, value in batch.items() if key not in ("partner", "lam")}
    mixed, masks = zip(
        *(
            (rows, mask) if partner is None else _mixed(batch["lam"], rows, mask, partner, other)
            for rows, mask, partner, other in zip(
                features,
                batch["masks"]["features"],
                batch["partner"]["features"],
                batch["partner"]["masks"],
                strict=True,
            )
        ),
        strict=True,
    )
    return {**rest, "features": mixed, "masks": {**batch["masks"], "features": masks}}


def _mixed(
    lam: Float[Array | np.ndarray, "clip"],
    own: Float32[Array | np.ndarray, "clip row column"],
    own_mask: Bool[Array | np.ndarray, "clip row"],
    partner: Float[Array | np.ndarray, "clip row column"],
    mask: Bool[Array | np.ndarray, "clip row"],
) -> tuple[Float32[Array, "clip row column"], Bool[Array, "clip row"]]:
    partner, there = partner.astype(jnp.float32), jnp.asarray(mask)
    weight = lam[:, None, None]
    both = weight * own + (1 - weight) * partner
    single = jnp.where((there & ~own_mask)[..., None], partner, own)
    return jnp.where((there & own_mask)[..., None], both, single), there | own_mask
