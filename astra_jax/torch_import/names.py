"""The tensors of a published checkpoint: their names, and the shapes that its sizes give them."""

import dataclasses
import re
from collections.abc import Iterable, Mapping

from astra_jax.errors import UserError
from astra_jax.model.config import AudioConfig

Shapes = Mapping[str, tuple[int, ...]]
Found = dict[str, tuple[int, ...]]

# The mixup queue is no part of the model.
QUEUE = ("labelQ", "labelDQ", "featBQ", "featAQ")
CONVOLUTIONS = (0, 3, 6, 8, 11, 13)
"""VGGish's, counted as its port does, activations and poolings between them."""

_SHOWN = 10


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What a checkpoint's shapes tell. `outputs`: classes, background among them."""

    rows: int
    widths: tuple[int, ...]
    audio: AudioConfig | None
    positions: int
    outputs: int
    dim: int
    feed_forward: int
    encoder_layers: int
    decoder_layers: int
    uncertainty: bool
    augmented: bool


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
        return max(1, len({match[1] for match in found if match}))


def read_sizes(shapes: Shapes) -> Sizes:
    """The sizes of the checkpoint whose tensors have these shapes.

    Raises:
        UserError: in one line all that is missing, left over or of a shape that doesn't fit.
    """
    seen = _Seen(shapes)
    sizes = _sizes(seen)
    expected = tensors_of(sizes)
    # Where a size isn't known the shapes that hang on it say nothing.
    wrong = misshapen(shapes, expected) if seen.complete else seen.unusable
    if found := misfit(shapes, expected, wrong, QUEUE):
        raise UserError(
            f"checkpoint: not the state dict of an ASTRA, but of its optimiser, another model or "
            f"a part of one? {found}"
        )
    return sizes


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


def _audio(seen: _Seen, augmented: bool) -> AudioConfig:
    channels = tuple(seen.size(f"vggish_features.{i}.weight", 0, 4) for i in CONVOLUTIONS)
    hidden = seen.size("vggish_embeddings.0.weight", 0)
    flat = seen.size("vggish_embeddings.0.weight", 1)
    defaults = AudioConfig(frames=0)
    # Behind four poolings; the learned frame says it to the band.
    mels = flat // (channels[-1] * defaults.image[0]) * 16
    if augmented:
        mels = seen.size("temporal_dropA.embedding", 0, 1)
    # The frames behind the last whole segment are unused, so a clip of whole segments serves.
    frames = seen.size("encTA", 0) * defaults.segment_frames
    return AudioConfig(frames=frames, mels=mels, channels=channels, hidden=hidden)


def tensors_of(sizes: Sizes) -> Found:
    """Names and shapes of a checkpoint of such sizes."""
    dim, outputs = sizes.dim, sizes.outputs
    found: Found = {
        "encTB": (sizes.rows, dim),
        "encFB": (len(sizes.widths), dim),
        "queries": (sizes.positions, dim),
    }
    for i, width in enumerate(sizes.widths):
        found |= _linear(f"baidu_LL.{i}.head.1", width, width)
        found |= _linear(f"baidu_LL.{i}.head.4", width, dim)
    if sizes.augmented:
        found["temporal_dropB.embedding"] = (sum(sizes.widths),)
    if sizes.audio is not None:
        found |= _audio_tensors(sizes.audio, dim, sizes.augmented)
    for i in range(sizes.encoder_layers):
        found |= _layer(f"Tencoder.layers.{i}", ("self_attn",), sizes)
    for i in range(sizes.decoder_layers):
        found |= _layer(f"Tdecoder.layers.{i}", ("self_attn", "multihead_attn"), sizes)
    found |= _linear("clas_head.head.1", dim, dim) | _linear("clas_head.head.4", dim, outputs)
    if not sizes.uncertainty:
        head = "displ_head.head"
        return found | _linear(f"{head}.1", dim, dim) | _linear(f"{head}.4", dim, outputs)
    for i in (1, 4):
        found |= _linear(f"displ_head.shared_head.{i}", dim, dim)
    for part in ("mean", "logvar"):
        found |= _linear(f"displ_head.{part}_head.1", dim, outputs)
    return found


def convolutions(name: str, channels: tuple[int, ...]) -> Found:
    """VGGish's convolutions, numbered behind `name`."""
    found: Found = {}
    for i, before, after in zip(CONVOLUTIONS, (1, *channels), channels, strict=False):
        found |= {f"{name}.{i}.weight": (after, before, 3, 3), f"{name}.{i}.bias": (after,)}
    return found


def _audio_tensors(audio: AudioConfig, dim: int, augmented: bool) -> Found:
    frames, mels = audio.image
    widths = (audio.channels[-1] * frames * mels, audio.hidden, audio.hidden, dim)
    found: Found = {"encTA": (audio.segments, dim), "encA": (dim,)}
    found |= convolutions("vggish_features", audio.channels)
    for i in range(3):
        found |= _linear(f"vggish_embeddings.{2 * i}", widths[i], widths[i + 1])
    if augmented:
        found["temporal_dropA.embedding"] = (audio.mels,)
    return found


def _layer(name: str, attentions: tuple[str, ...], sizes: Sizes) -> Found:
    dim = sizes.dim
    found: Found = {}
    for attention in attentions:
        found[f"{name}.{attention}.in_proj_weight"] = (3 * dim, dim)
        found[f"{name}.{attention}.in_proj_bias"] = (3 * dim,)
        found |= _linear(f"{name}.{attention}.out_proj", dim, dim)
    found |= _linear(f"{name}.linear1", dim, sizes.feed_forward)
    found |= _linear(f"{name}.linear2", sizes.feed_forward, dim)
    for i in range(len(attentions) + 1):
        found |= {f"{name}.norm{i + 1}.{part}": (dim,) for part in ("weight", "bias")}
    return found


def _linear(name: str, inputs: int, outputs: int) -> Found:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def misshapen(shapes: Shapes, expected: Shapes) -> list[str]:
    """Those that are there with another shape than they should have, in words."""
    return [
        f"{name} {shapes[name]}, not {shape}"
        for name, shape in expected.items()
        if name in shapes and shapes[name] != shape
    ]


def misfit(
    shapes: Shapes, expected: Shapes, wrong: Iterable[str], ignored: Iterable[str] = ()
) -> str:
    """What is missing, of another shape (`wrong`) and left over, in a line; empty if all fits."""
    parts = {
        "missing": [name for name in expected if name not in shapes],
        "of another shape": list(wrong),
        "left over": sorted(shapes.keys() - expected.keys() - set(ignored)),
    }
    return "; ".join(f"{word}: {_shortened(items)}" for word, items in parts.items() if items)


def _shortened(items: list[str]) -> str:
    more = len(items) - _SHOWN
    return ", ".join(items[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
