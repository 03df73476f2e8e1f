"""Published checkpoints to ours: the sizes off their shapes, the parameters by the table of names.

Needs no torch.
"""

import re
from typing import Any

import numpy as np
from flax.traverse_util import unflatten_dict

from astra_jax.errors import UserError
from astra_jax.model.config import ModelConfig, SourceShape, VGGishConfig
from astra_jax.torch_import.files import State
from astra_jax.torch_import.names import (
    CONVOLUTIONS,
    QUEUE,
    Shapes,
    Sizes,
    describe_misfit,
    params_of,
    shapes_of,
    table_of,
    wrong_shapes,
)

Params = dict[str, Any]


def from_state_dict(
    state: State, heads: int = 8, hierarchical: bool = True
) -> tuple[ModelConfig, Params]:
    """Turns a published `state_dict` into a model's config and parameters.

    Args:
        state: arrays by the published names. Sizes, the rows of a clip and the number of
            positions are read off the shapes; queue buffers are ignored.
        heads: attention heads; the shapes don't tell.
        hierarchical: whether the checkpoint's encoder was hierarchical; nor do they tell this.

    Returns:
        The config (augmentation at the published rates where the checkpoint has its learned
        vectors, off elsewhere; float32 at the highest precision) and the `params` of
        `ASTRA(config)`.

    Raises:
        UserError: tensors are missing, of shapes that don't fit, or left over that no part of the
            model takes, all of them named; or `heads` doesn't divide the model.
    """
    sizes = read_sizes({name: np.shape(array) for name, array in state.items()})
    if heads < 1 or sizes.dim % heads:
        raise UserError(
            f"checkpoint: its {sizes.dim} columns can't be split over {heads} attention heads: "
            "give the number it was trained with (the published models have 8)"
        )
    config = ModelConfig(
        sources=(SourceShape(sizes.rows, sizes.widths),),
        audio=sizes.audio,
        positions=sizes.positions,
        num_classes=sizes.outputs - 1,
        dim=sizes.dim,
        heads=heads,
        feed_forward=sizes.feed_forward,
        encoder_layers=sizes.encoder_layers,
        decoder_layers=sizes.decoder_layers,
        hierarchical=hierarchical,
        uncertainty=sizes.uncertainty,
        temporal_dropout=0.5 if sizes.augmented else 0.0,
        temporal_switch=0.3 if sizes.augmented else 0.0,
        dtype="float32_highest",
    )
    return config, unflatten_dict(params_of(table_of(sizes, heads), state), sep="/")


def read_sizes(shapes: Shapes) -> Sizes:
    """The sizes of the checkpoint whose tensors have these shapes.

    Raises:
        UserError: in one line all that is missing, left over or of a shape that doesn't fit.
    """
    seen = _Seen(shapes)
    sizes = _sizes(seen)
    expected = shapes_of(table_of(sizes))
    # Where a size isn't known the shapes that hang on it say nothing.
    wrong = wrong_shapes(shapes, expected) if seen.complete else seen.unusable
    if misfit := describe_misfit(shapes, expected, wrong, QUEUE):
        raise UserError(
            f"checkpoint: not the state dict of an ASTRA, but of its optimiser, another model or "
            f"a part of one? {misfit}"
        )
    return sizes


class _Seen:
    """Reads sizes off shapes; those it can't read are 1, and `unusable` says why."""

    def __init__(self, shapes: Shapes) -> None:
        self._shapes = shapes
        self.unusable: list[str] = []
        self.complete = True

    def size(self, name: str, axis: int, rank: int = 2) -> int:
        """The length of an axis of a tensor that has `rank` of them."""
        shape = self._shapes.get(name)
        if shape is not None and len(shape) == rank and 0 not in shape:
            return shape[axis]
        self.complete = False
        if shape is not None:
            self.unusable.append(f"{name} {shape}, not {rank} axes of at least 1")
        return 1

    def any(self, *prefixes: str) -> bool:
        """Whether a name begins so."""
        return any(name.startswith(prefixes) for name in self._shapes)

    def count(self, prefix: str) -> int:
        """How many different numbers follow `prefix`; at least 1."""
        found = (re.match(re.escape(prefix) + r"\.(\d+)\.", name) for name in self._shapes)
        return max(1, len({numbered[1] for numbered in found if numbered}))


def _sizes(seen: _Seen) -> Sizes:
    augmented = seen.any("temporal_drop")
    return Sizes(
        rows=seen.size("encTB", 0),
        widths=tuple(
            seen.size(f"baidu_LL.{i}.head.1.weight", 1) for i in range(seen.count("baidu_LL"))
        ),
        audio=_audio(seen, augmented) if seen.any("vggish", "encTA", "encA") else None,
        positions=seen.size("queries", 0),
        outputs=seen.size("clas_head.head.4.weight", 0),
        dim=seen.size("encTB", 1),
        feed_forward=seen.size("Tdecoder.layers.0.linear1.weight", 0),
        encoder_layers=seen.count("Tencoder.layers"),
        decoder_layers=seen.count("Tdecoder.layers"),
        uncertainty=seen.any(*(f"displ_head.{part}_head" for part in ("shared", "mean", "logvar"))),
        augmented=augmented,
    )


def _audio(seen: _Seen, augmented: bool) -> VGGishConfig:
    channels = tuple(seen.size(f"vggish_features.{i}.weight", 0, 4) for i in CONVOLUTIONS)
    hidden = seen.size("vggish_embeddings.0.weight", 0)
    flat = seen.size("vggish_embeddings.0.weight", 1)
    defaults = VGGishConfig(frames=0)
    # Four poolings halved them, rests dropped; the learned frame tells their very number.
    mels = flat // (channels[-1] * defaults.image[0]) * 16
    if augmented:
        mels = seen.size("temporal_dropA.embedding", 0, 1)
    # The frames after the last whole segment are unused, so a clip of whole segments serves.
    frames = seen.size("encTA", 0) * defaults.segment_frames
    return VGGishConfig(frames=frames, mels=mels, channels=channels, hidden=hidden)
