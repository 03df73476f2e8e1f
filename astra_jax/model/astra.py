"""ASTRA: embeddings, encoder, decoder and heads put together."""

import contextlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from astra_jax.model.embeddings import SourceEmbedding, hide_absent
from astra_jax.model.heads import PlainHead, UncertaintyHead
from astra_jax.model.initial_values import adjust_initial_values
from astra_jax.model.interface import Predictions, SpottingModel
from astra_jax.model.shortcut import Shortcut
from astra_jax.model.transformer import Decoder, Encoder
from astra_jax.model.vggish import AudioEmbedding


class ASTRA(SpottingModel):
    """The action-spotting transformer of Xarles et al. 2023 (figure 1).

    `apply({"params": params}, inputs, train=False)` with inputs
    `{"features": (array, ...), "log_mel": array or None}`: for each source an array
    `(clip, row, column)`, and decibels `(clip, frame, mel)`. Optional
    `"masks": {"features": (bool array (clip, row), ...), "log_mel": (clip, frame)}` say which
    time steps are there; attention never sees the others. Training takes the rng streams
    `dropout` and `augment`.
    """

    def setup(self) -> None:
        cfg = self.config
        self.sources = [
            SourceEmbedding(cfg, source, name=f"source_{i}") for i, source in enumerate(cfg.sources)
        ]
        if cfg.audio is not None:
            self.audio = AudioEmbedding(cfg, cfg.audio)
        self.encoder = Encoder(cfg)
        self.decoder = Decoder(cfg)
        self.classification_head = PlainHead(cfg)
        self.shortcut = None if cfg.shortcut_reach is None else Shortcut(cfg)
        self.displacement_head = UncertaintyHead(cfg) if cfg.uncertainty else PlainHead(cfg)

    @nn.nowrap
    def initial_params(self, seed: int) -> Any:
        """Fresh parameters: as published, then as `config` asks (`initial_values`)."""
        return adjust_initial_values(super().initial_params(seed), self.config)

    def embed(
        self, inputs: dict[str, Any], train: bool = False
    ) -> tuple[tuple[Float[Array, "clip _ dim"], ...], Bool[Array, "clip token"] | None]:
        """The token streams of clips, one a source and the audio's, and which tokens are there."""
        masks = inputs.get("masks") or {}
        row_masks = masks.get("features") or (None,) * len(self.sources)
        streams, present = [], []
        for embedding, rows, mask in zip(self.sources, inputs["features"], row_masks, strict=True):
            tokens, there = embedding(rows, mask, train)
            streams.append(tokens)
            present.append(there)
        if self.config.audio is not None:
            tokens, there = self.audio(inputs["log_mel"], masks.get("log_mel"), train)
            streams.append(tokens)
            present.append(there)
        return tuple(streams), _combine_masks(streams, present)

    def decode(
        self,
        streams: tuple[Float[Array, "clip _ dim"], ...],
        present: Bool[Array, "clip token"] | None,
        train: bool = False,
        shortcut: tuple[Float[Array, "clip position class"], Float[Array, "clip position dim"]]
        | None = None,
    ) -> Predictions:
        """Encodes the token streams and predicts each output position.

        What the `Shortcut` gives is added to the logits and to what the heads are given.
        """
        memory = self.encoder(streams, present, train)
        queries = self.decoder(memory, present, train)
        if shortcut is not None:
            queries += shortcut[1].astype(queries.dtype)
        logits = self.classification_head(queries, train)
        if shortcut is not None:
            logits += shortcut[0]
        log_variance = None
        if self.config.uncertainty:
            mean, log_variance = self.displacement_head(queries, train)
        else:
            mean = self.displacement_head(queries, train)
        return Predictions(jax.nn.sigmoid(logits), mean, log_variance)

    def embed_pieces(
        self, stream: int, pieces: Float[Array, "piece *column"], present: Bool[Array, " piece"]
    ) -> dict[str, Float[Array, "_ ..."]]:
        """A row's or segment's tokens without their codes; of a row also what the shortcut sees."""
        with self._precision():
            (shown,) = hide_absent(pieces[None], present[None])
            if stream == len(self.sources):
                return {"tokens": self.audio.project(shown[None])[0]}
            embedded = {"tokens": self.sources[stream].project(shown[None])[0]}
            if self.shortcut is not None:
                source = self.config.sources[stream]
                embedded["columns"] = shown[:, : source.shortcut_columns]
            return embedded

    def predict_embedded(
        self,
        embedded: tuple[dict[str, Float[Array, "clip _ ..."]], ...],
        present: tuple[Bool[Array, "clip _"], ...],
    ) -> Predictions:
        """Predicts clips from the pieces of every stream; see `SpottingModel`."""
        with self._precision():
            count = len(self.sources)
            coding = [*self.sources, *([] if self.config.audio is None else [self.audio])]
            streams = [
                embedding.code(pieces["tokens"])
                for embedding, pieces in zip(coding, embedded, strict=True)
            ]
            masks = [
                jnp.repeat(there, tokens.shape[1] // there.shape[1], axis=1)
                for there, tokens in zip(present, streams, strict=True)
            ]
            shortcut = None
            if self.shortcut is not None:
                shortcut = self.shortcut(tuple(of["columns"] for of in embedded[:count]))
            return self.decode(tuple(streams), _combine_masks(streams, masks), shortcut=shortcut)

    def _precision(self) -> contextlib.AbstractContextManager[None]:
        """In which precision products are taken."""
        if self.config.highest_precision:
            return jax.default_matmul_precision("highest")
        return contextlib.nullcontext()

    def __call__(self, inputs: dict[str, Any], train: bool = False) -> Predictions:
        """Predicts clips; see the class."""
        inputs = jax.tree.map(jnp.asarray, inputs)
        with self._precision():
            shortcut = None
            if self.shortcut is not None:
                masks = (inputs.get("masks") or {}).get("features") or (None,) * len(self.sources)
                shortcut = self.shortcut(tuple(map(hide_absent, inputs["features"], masks)))
            return self.decode(*self.embed(inputs, train), train, shortcut)


def _combine_masks(
    streams: Sequence[Float[Array, "clip _ dim"]], present: Sequence[Bool[Array, "clip _"] | None]
) -> Bool[Array, "clip token"] | None:
    """One mask over all tokens, None where no stream has one."""
    if all(mask is None for mask in present):
        return None
    return jnp.concatenate(
        [
            jnp.ones(stream.shape[:2], bool) if mask is None else mask
            for stream, mask in zip(streams, present, strict=True)
        ],
        axis=1,
    )
