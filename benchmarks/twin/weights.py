"""Our parameters as the state dict of the PyTorch twin: the way back of `torch_import`."""

from collections import defaultdict
from typing import Any

import numpy as np
import torch
from flax.traverse_util import flatten_dict
from jaxtyping import Float

from astra_jax.model import ModelConfig
from astra_jax.torch_import.names import Entry, Sizes, table_of


def to_state_dict(params: dict[str, Any], config: ModelConfig) -> dict[str, torch.Tensor]:
    """What a `TorchASTRA` of `config`'s sizes loads to be `ASTRA(config)` with `params`."""
    ours = flatten_dict(params, sep="/")
    tensors = defaultdict(list)
    for entry in table_of(Sizes.of(config), config.heads):
        tensors[entry.name].append(_to_published(entry, np.asarray(ours[entry.path])))
    # Several are the thirds of one tensor, which the table has in their order.
    return {name: torch.tensor(np.concatenate(parts)) for name, parts in tensors.items()}


def _to_published(
    entry: Entry, parameter: Float[np.ndarray, "..."]
) -> Float[np.ndarray, "first ..."]:
    """The tensor, or the third of it, that `entry.to_ours` makes `parameter` of."""
    split = parameter.reshape(entry.ordered).transpose(np.argsort(entry.order))
    return split.reshape(-1, *entry.shape[1:])
