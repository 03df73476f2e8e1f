"""One table of published checkpoints: each tensor's name, shape and place among our parameters."""

import dataclasses
import math
from collections.abc import Iterable, Mapping

import numpy as np
from jaxtyping import Shaped

from astra_jax.errors import join_some
from astra_jax.model.config import ModelConfig, VGGishConfig
from astra_jax.torch_import.files import State

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]

# The mixup queue is no part of the model.
QUEUE = ("labelQ", "labelDQ", "featBQ", "featAQ")
CONVOLUTIONS = (0, 3, 6, 8, 11, 13)
"""VGGish's, counted as its port does, activations and poolings between them."""

_MOST_NAMES = 10


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What a checkpoint's shapes tell. `outputs`: classes, background among them."""

    rows: int
    widths: tuple[int, ...]
    audio: VGGishConfig | None
    positions: int
    outputs: int
    dim: int
    feed_forward: int
    encoder_layers: int
    decoder_layers: int
    uncertainty: bool
    augmented: bool

    @classmethod
    def of(cls, config: ModelConfig) -> "Sizes":
        """Those of `ASTRA(config)`, which has one source, as published models do."""
        (source,) = config.sources
        return cls(
            rows=source.rows,
            widths=source.widths,
            audio=config.audio,
            positions=config.positions,
            outputs=config.num_classes + 1,
            dim=config.dim,
            feed_forward=config.feed_forward,
            encoder_layers=config.encoder_layers,
            decoder_layers=config.decoder_layers,
            uncertainty=config.uncertainty,
            augmented=config.temporal_dropout > 0,
        )


@dataclasses.dataclass(frozen=True)
class Entry:
    """One of our parameters, and the published tensor that it is made of.

    Attributes:
        name: the tensor's.
        shape: the tensor's.
        path: the parameter's, such as `encoder/layer_0/self_attention/query/kernel`.
        split: the shape of the tensor, or of its third, with its axes taken apart.
        order: which of these axes the parameter has first, second, ...
        joined: the parameter's shape where it has several of these axes as one.
        third: which third of the tensor's first axis the parameter is; None: all of the tensor.
    """

    name: str
    shape: Shape
    path: str
    split: Shape
    order: tuple[int, ...]
    joined: Shape | None = None
    third: int | None = None

    @property
    def ordered(self) -> Shape:
        """The lengths of the axes in the parameter's order."""
        return tuple(self.split[axis] for axis in self.order)

    def to_ours(self, tensor: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
        """The parameter: a view of the published tensor where its axes allow it."""
        if self.third is not None:
            tensor = np.split(tensor, 3)[self.third]
        parameter = tensor.reshape(self.split).transpose(self.order)
        return parameter if self.joined is None else parameter.reshape(self.joined)


def table_of(sizes: Sizes, heads: int = 1) -> list[Entry]:
    """The entries of a checkpoint of such sizes, one for each parameter of ours.

    `heads`, of attention, must divide the model; names and published shapes are the same for all.
    """
    dim, outputs = sizes.dim, sizes.outputs
    entries = [
        _same("encTB", "source_0/time_code", sizes.rows, dim),
        _same("encFB", "source_0/embedding_code", len(sizes.widths), dim),
        _same("queries", "decoder/queries", sizes.positions, dim),
    ]
    for i, width in enumerate(sizes.widths):
        entries += _network(f"baidu_LL.{i}.head", f"source_0/projection_{i}", width, width, dim)
    if sizes.augmented:
        width = sum(sizes.widths)
        entries.append(_same("temporal_dropB.embedding", "source_0/dropped_step", width))
    if sizes.audio is not None:
        entries += _audio(sizes.audio, dim, sizes.augmented)
    attentions = {"self_attn": "self_attention"}
    for i in range(sizes.encoder_layers):
        entries += _layer(f"Tencoder.layers.{i}", f"encoder/layer_{i}", attentions, sizes, heads)
    attentions["multihead_attn"] = "cross_attention"
    for i in range(sizes.decoder_layers):
        entries += _layer(f"Tdecoder.layers.{i}", f"decoder/layer_{i}", attentions, sizes, heads)
    entries += _network("clas_head.head", "classification_head", dim, dim, outputs)
    if not sizes.uncertainty:
        return entries + _network("displ_head.head", "displacement_head", dim, dim, outputs)
    return entries + [
        *linear("displ_head.shared_head.1", "displacement_head/shared_0", dim, dim),
        *linear("displ_head.shared_head.4", "displacement_head/shared_1", dim, dim),
        *linear("displ_head.mean_head.1", "displacement_head/mean", dim, outputs),
        *linear("displ_head.logvar_head.1", "displacement_head/log_variance", dim, outputs),
    ]


def linear(name: str, path: str, inputs: int, outputs: int) -> list[Entry]:
    """A linear's weight and bias."""
    shape = (outputs, inputs)
    return [
        Entry(f"{name}.weight", shape, f"{path}/dense/kernel", shape, (1, 0)),
        _same(f"{name}.bias", f"{path}/dense/bias", outputs),
    ]


def convolutions(name: str, path: str, channels: tuple[int, ...]) -> list[Entry]:
    """VGGish's convolutions, numbered after `name` and below `path`."""
    entries = []
    pairs = zip((1, *channels), channels, strict=False)
    for i, (number, (before, after)) in enumerate(zip(CONVOLUTIONS, pairs, strict=True)):
        shape = (after, before, 3, 3)
        kernel = f"{path}/conv_{i}/kernel"
        entries.append(Entry(f"{name}.{number}.weight", shape, kernel, shape, (2, 3, 1, 0)))
        entries.append(_same(f"{name}.{number}.bias", f"{path}/conv_{i}/bias", after))
    return entries


def _same(name: str, path: str, *shape: int) -> Entry:
    """A tensor that is a parameter as it stands."""
    return Entry(name, shape, path, shape, tuple(range(len(shape))))


def _network(name: str, path: str, inputs: int, hidden: int, outputs: int) -> list[Entry]:
    """Two linears, each after a dropout, and an activation between them."""
    return [
        *linear(f"{name}.1", f"{path}/hidden", inputs, hidden),
        *linear(f"{name}.4", f"{path}/output", hidden, outputs),
    ]


def _audio(audio: VGGishConfig, dim: int, augmented: bool) -> list[Entry]:
    name, path = "vggish_embeddings", "audio/vggish"
    image = (audio.channels[-1], *audio.image)
    flat = math.prod(image)
    kernel, bias = linear(f"{name}.0", f"{path}/linear_0", flat, audio.hidden)
    # Published images are flattened (channel, frame, mel), ours (frame, mel, channel).
    kernel = dataclasses.replace(
        kernel, split=(audio.hidden, *image), order=(2, 3, 1, 0), joined=(flat, audio.hidden)
    )
    entries = [
        _same("encTA", "audio/time_code", audio.segments, dim),
        _same("encA", "audio/audio_code", dim),
        *convolutions("vggish_features", path, audio.channels),
        *(kernel, bias),
        *linear(f"{name}.2", f"{path}/linear_1", audio.hidden, audio.hidden),
        *linear(f"{name}.4", f"{path}/linear_2", audio.hidden, dim),
    ]
    if augmented:
        entries.append(_same("temporal_dropA.embedding", "audio/dropped_step", audio.mels))
    return entries


def _layer(
    name: str, path: str, attentions: Mapping[str, str], sizes: Sizes, heads: int
) -> list[Entry]:
    """A transformer layer with the `attentions` (by published name), a norm after each part."""
    dim, width = sizes.dim, sizes.feed_forward
    entries = []
    for published, ours in attentions.items():
        entries += _attention(f"{name}.{published}", f"{path}/{ours}", dim, heads)
    entries += linear(f"{name}.linear1", f"{path}/feed_forward/hidden", dim, width)
    entries += linear(f"{name}.linear2", f"{path}/feed_forward/output", width, dim)
    for i in range(len(attentions) + 1):
        norm = f"{path}/residual_{i}/norm"
        entries.append(_same(f"{name}.norm{i + 1}.weight", f"{norm}/scale", dim))
        entries.append(_same(f"{name}.norm{i + 1}.bias", f"{norm}/bias", dim))
    return entries


def _attention(name: str, path: str, dim: int, heads: int) -> list[Entry]:
    """An attention; query, key and value are the thirds of one published tensor, in this order."""
    split = (heads, dim // heads)
    parts = tuple(enumerate(f"{path}/{part}" for part in ("query", "key", "value")))
    weight, bias, out = f"{name}.in_proj_weight", f"{name}.in_proj_bias", f"{name}.out_proj"
    weights = [
        Entry(weight, (3 * dim, dim), f"{part}/kernel", (*split, dim), (2, 0, 1), third=i)
        for i, part in parts
    ]
    biases = [Entry(bias, (3 * dim,), f"{part}/bias", split, (0, 1), third=i) for i, part in parts]
    return [
        *weights,
        *biases,
        Entry(f"{out}.weight", (dim, dim), f"{path}/out/kernel", (dim, *split), (1, 2, 0)),
        _same(f"{out}.bias", f"{path}/out/bias", dim),
    ]


def shapes_of(entries: Iterable[Entry]) -> dict[str, Shape]:
    """Names and shapes of the published tensors, in the table's order."""
    return {entry.name: entry.shape for entry in entries}


def params_of(entries: Iterable[Entry], state: State) -> dict[str, Shaped[np.ndarray, "..."]]:
    """Our parameters by path, from a `state` that has the entries' tensors."""
    return {entry.path: entry.to_ours(np.asarray(state[entry.name])) for entry in entries}


def wrong_shapes(shapes: Shapes, expected: Shapes) -> list[str]:
    """Those that are there with another shape than they should have, in words."""
    return [
        f"{name} {shapes[name]}, not {shape}"
        for name, shape in expected.items()
        if name in shapes and shapes[name] != shape
    ]


def describe_misfit(
    shapes: Shapes, expected: Shapes, wrong: Iterable[str], ignored: Iterable[str] = ()
) -> str:
    """What is missing, of another shape (`wrong`) and left over, in a line; empty if all fits."""
    parts = {
        "missing": [name for name in expected if name not in shapes],
        "of another shape": list(wrong),
        "left over": sorted(shapes.keys() - expected.keys() - set(ignored)),
    }
    return "; ".join(
        f"{word}: {join_some(items, _MOST_NAMES)}" for word, items in parts.items() if items
    )
