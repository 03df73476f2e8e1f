"""ASTRA in PyTorch, as its users would write it: the yardstick for speed (benchmarks/speed.py).

Written from the paper. Parameters carry the names of published checkpoints, so that
`astra_jax.torch_import.from_state_dict` reads its state dict; `twin.weights.to_state_dict` is
the way back. PyTorch is given what it is good at: its own transformer layers, segments of equal
length in one batch and without masks, images with channels last.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional
from twin.sizes import AudioSizes, Sizes


def switched_order(draws: Bool[Tensor, "clip pair"]) -> Int[Tensor, "clip step"]:
    """The order of a clip's steps after a walk from left to right.

    At step i, where `draws` says so, i and i+1 swap and the walk goes on at i+2, else at i+1.
    So of a run of positive draws every other one swaps.
    """
    index = torch.arange(draws.shape[1] + 1, device=draws.device)
    last_miss = torch.where(draws, -1, index[:-1]).cummax(dim=1).values
    swaps = (draws & ((index[:-1] - last_miss) % 2 == 1)).long()
    return index + functional.pad(swaps, (0, 1)) - functional.pad(swaps, (1, 0))


class TemporalAugmentation(nn.Module):
    """Temporal dropout and temporal switch of raw inputs, drawn for each clip (section 3.4).

    The steps are switched first: which ones are dropped is drawn independently, so the order
    makes no difference, and no gradient has to find its way back through the switch.
    """

    def __init__(self, width: int, dropout: float, switch: float) -> None:
        super().__init__()
        self.dropout, self.switch = dropout, switch
        self.embedding = nn.Parameter(torch.rand(width))

    def forward(
        self, steps: Float[Tensor, "clip step column"]
    ) -> Float[Tensor, "clip step column"]:
        """Changes steps in training only."""
        if not self.training:
            return steps
        clips, count, _ = steps.shape
        draws = torch.rand(clips, count, 2, device=steps.device)
        order = switched_order(draws[:, 1:, 0] < self.switch)
        steps = steps[torch.arange(clips, device=steps.device)[:, None], order]
        dropped = draws[:, :, 1:] < self.dropout
        return torch.where(dropped, self.embedding, steps)


class Head(nn.Module):
    """Layers under the name that published checkpoints give them."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.head = nn.Sequential(*layers)

    def forward(self, x: Float[Tensor, "clip step column"]) -> Float[Tensor, "clip step feature"]:
        """Applies the layers."""
        return self.head(x)


class UncertaintyHead(nn.Module):
    """Mean and log variance of the displacement."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        dim, outputs, dropout = sizes.dim, sizes.num_classes + 1, sizes.head_dropout
        self.shared_head = nn.Sequential(*_dense(dim, dim, dropout), *_dense(dim, dim, dropout))
        self.mean_head = nn.Sequential(nn.Dropout(dropout), nn.Linear(dim, outputs))
        self.logvar_head = nn.Sequential(nn.Dropout(dropout), nn.Linear(dim, outputs))

    def forward(
        self, x: Float[Tensor, "clip position dim"]
    ) -> tuple[Float[Tensor, "clip position class"], Float[Tensor, "clip position class"]]:
        """Both, in output positions."""
        x = self.shared_head(x)
        return self.mean_head(x), self.logvar_head(x)


def _dense(inputs: int, outputs: int, dropout: float) -> tuple[nn.Module, ...]:
    return nn.Dropout(dropout), nn.Linear(inputs, outputs), nn.ReLU()


def _plain_head(sizes: Sizes) -> Head:
    dim, rate = sizes.dim, sizes.head_dropout
    return Head(*_dense(dim, dim, rate), nn.Dropout(rate), nn.Linear(dim, sizes.num_classes + 1))


class HierarchicalEncoder(nn.Module):
    """Layer i of n over 2^(n - i) segments of a clip, each as its own sequence (section 3.2)."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                sizes.dim, sizes.heads, sizes.feed_forward, sizes.dropout, batch_first=True
            )
            for _ in range(sizes.encoder_layers)
        )

    def forward(
        self, streams: list[Float[Tensor, "clip _ dim"]]
    ) -> Float[Tensor, "clip token dim"]:
        """All tokens, encoded, the streams one after the other."""
        for i, layer in enumerate(self.layers):
            streams = _by_segments(layer, streams, 2 ** (len(self.layers) - 1 - i))
        return torch.cat(streams, dim=1)


def _by_segments(
    layer: nn.Module, streams: list[Float[Tensor, "clip _ dim"]], segments: int
) -> list[Float[Tensor, "clip _ dim"]]:
    """The segments of equal length as one batch; the last, if it is longer, on its own."""
    lengths = [stream.shape[1] // segments for stream in streams]
    even = all(stream.shape[1] % segments == 0 for stream in streams)
    count = segments if even else segments - 1
    cuts = [count * length for length in lengths]
    clips, _, dim = streams[0].shape
    batched = [
        stream[:, :cut].reshape(clips * count, length, dim)
        for stream, cut, length in zip(streams, cuts, lengths, strict=True)
    ]
    encoded = [
        part.reshape(clips, -1, dim)
        for part in layer(torch.cat(batched, dim=1)).split(lengths, dim=1)
    ]
    if even:
        return encoded
    rest = [stream[:, cut:] for stream, cut in zip(streams, cuts, strict=True)]
    last = layer(torch.cat(rest, dim=1)).split([part.shape[1] for part in rest], dim=1)
    return [torch.cat(pair, dim=1) for pair in zip(encoded, last, strict=True)]


def _vggish_features(channels: tuple[int, ...]) -> nn.Sequential:
    """Six convolutions, two in each of the last two blocks; a pooling closes each of the four."""
    layers: list[nn.Module] = []
    for i, (before, after) in enumerate(zip((1, *channels), channels, strict=False)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU()]
        if i not in (2, 4):
            layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


class TorchASTRA(nn.Module):
    """ASTRA for one source and, if `sizes` has it, audio; temporal augmentation must be on."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        dim = sizes.dim
        augmentation = sizes.temporal_dropout, sizes.temporal_switch
        self.sizes = sizes
        self.temporal_dropB = TemporalAugmentation(sum(sizes.widths), *augmentation)
        self.baidu_LL = nn.ModuleList(
            Head(
                *_dense(width, width, sizes.embedding_dropout),
                *_dense(width, dim, sizes.embedding_dropout),
            )
            for width in sizes.widths
        )
        self.encTB = nn.Parameter(torch.rand(sizes.rows, dim))
        self.encFB = nn.Parameter(torch.rand(len(sizes.widths), dim))
        if sizes.audio is not None:
            self._add_audio(sizes.audio, dim, augmentation)
        self.Tencoder = HierarchicalEncoder(sizes)
        self.Tdecoder = nn.TransformerDecoder(
            nn.TransformerDecoderLayer(
                dim, sizes.heads, sizes.feed_forward, sizes.dropout, batch_first=True
            ),
            sizes.decoder_layers,
        )
        self.queries = nn.Parameter(torch.rand(sizes.positions, dim))
        self.clas_head = _plain_head(sizes)
        self.displ_head = UncertaintyHead(sizes) if sizes.uncertainty else _plain_head(sizes)

    def _add_audio(self, audio: AudioSizes, dim: int, augmentation: tuple[float, float]) -> None:
        flat = audio.channels[-1] * (audio.segment_frames // 16) * (audio.mels // 16)
        self.temporal_dropA = TemporalAugmentation(audio.mels, *augmentation)
        self.vggish_features = _vggish_features(audio.channels)
        self.vggish_embeddings = nn.Sequential(
            nn.Linear(flat, audio.hidden),
            nn.ReLU(),
            nn.Linear(audio.hidden, audio.hidden),
            nn.ReLU(),
            nn.Linear(audio.hidden, dim),
            nn.ReLU(),
        )
        self.encTA = nn.Parameter(torch.rand(audio.segments, dim))
        self.encA = nn.Parameter(torch.rand(dim))

    def _visual_tokens(
        self, rows: Float[Tensor, "clip row column"]
    ) -> Float[Tensor, "clip token dim"]:
        parts = self.temporal_dropB(rows).split(self.sizes.widths, dim=2)
        projected = [project(part) for project, part in zip(self.baidu_LL, parts, strict=True)]
        tokens = torch.stack(projected, dim=2) + self.encTB[:, None] + self.encFB
        return tokens.flatten(1, 2)

    def _audio_tokens(
        self, log_mel: Float[Tensor, "clip frame mel"]
    ) -> Float[Tensor, "clip token dim"]:
        log_mel = self.temporal_dropA(log_mel)
        segments, frames = self.encTA.shape[0], self.sizes.audio.segment_frames
        images = log_mel[:, : segments * frames].reshape(-1, 1, frames, log_mel.shape[2])
        # Flattened by channel first, whatever the layout in memory.
        vectors = self.vggish_embeddings(self.vggish_features(images).flatten(1))
        return vectors.reshape(log_mel.shape[0], segments, -1) + self.encTA + self.encA

    def forward(
        self,
        rows: Float[Tensor, "clip row column"],
        log_mel: Float[Tensor, "clip frame mel"] | None = None,
    ) -> tuple[
        Float[Tensor, "clip position class"],
        Float[Tensor, "clip position class"],
        Float[Tensor, "clip position class"] | None,
    ]:
        """Probabilities, displacements and, with uncertainty, their log variances."""
        streams = [self._visual_tokens(rows)]
        if self.sizes.audio is not None:
            streams.append(self._audio_tokens(log_mel))
        queries = self.queries.expand(rows.shape[0], -1, -1)
        evolved = self.Tdecoder(queries, self.Tencoder(streams))
        displacement = self.displ_head(evolved)
        mean, log_variance = displacement if self.sizes.uncertainty else (displacement, None)
        return self.clas_head(evolved).sigmoid(), mean, log_variance
