"""What a model computes of halves, as programs of one shape for halves of any length."""

import functools
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from astra_jax.devices import batch_sharding, replicated
from astra_jax.model import Predictions, SpottingModel

Store = Any
"""Embedded pieces of a stream on the devices: arrays with a leading axis of places."""


class Programs:
    """A model on the devices of a mesh; each program is compiled when it is called first.

    Pieces are embedded, and windows predicted, a share on each device; every device holds the
    whole store, for its windows may need any of it.
    """

    def __init__(self, model: SpottingModel, mesh: Mesh) -> None:
        self.model, self.mesh = model, mesh
        whole, split = replicated(mesh), batch_sharding(mesh)
        self._embed = jax.jit(
            self._embed_block,
            static_argnames="stream",
            donate_argnames="store",
            out_shardings=whole,
        )
        self._predict = jax.jit(self._predict_windows, out_shardings=split)

    def empty_store(
        self,
        params: Any,
        stream: int,
        pieces: Float[np.ndarray, "piece *column"],
        present: Bool[np.ndarray, " piece"],
        size: int,
    ) -> Store:
        """Room for `size` embedded pieces like these."""
        embed = functools.partial(self._embed_pieces, stream=stream)
        shapes = jax.eval_shape(embed, params, pieces, present)
        empty = jax.tree.map(lambda leaf: np.zeros((size, *leaf.shape[1:]), leaf.dtype), shapes)
        return jax.device_put(empty, replicated(self.mesh))

    def embed(
        self,
        params: Any,
        store: Store,
        stream: int,
        pieces: Float[np.ndarray, "piece *column"],
        present: Bool[np.ndarray, " piece"],
        place: int,
    ) -> Store:
        """The store with these pieces from `place` on; the one that was given is used up."""
        block = jax.device_put((pieces, present), batch_sharding(self.mesh))
        at = jax.device_put(np.int32(place), replicated(self.mesh))
        return self._embed(params, store, *block, at, stream=stream)

    def predict(
        self,
        params: Any,
        stores: tuple[Store, ...],
        places: tuple[Int[np.ndarray, "window _"], ...],
        present: tuple[Bool[np.ndarray, "window _"], ...],
    ) -> Predictions:
        """What the model says of windows, of each the places of its pieces; on the devices."""
        windows = jax.device_put((places, present), batch_sharding(self.mesh))
        return self._predict(params, stores, *windows)

    def _embed_pieces(
        self,
        params: Any,
        pieces: Float[Array, "piece *column"],
        present: Bool[Array, " piece"],
        stream: int,
    ) -> Any:
        method = self.model.embed_pieces
        return self.model.apply({"params": params}, stream, pieces, present, method=method)

    def _embed_block(
        self,
        params: Any,
        store: Store,
        pieces: Float[Array, "piece *column"],
        present: Bool[Array, " piece"],
        place: Int[Array, ""],
        stream: int,
    ) -> Store:
        embedded = self._embed_pieces(params, pieces, present, stream)
        return jax.tree.map(
            lambda whole, part: jax.lax.dynamic_update_slice_in_dim(whole, part, place, 0),
            store,
            embedded,
        )

    def _predict_windows(
        self,
        params: Any,
        stores: tuple[Store, ...],
        places: tuple[Int[Array, "window _"], ...],
        present: tuple[Bool[Array, "window _"], ...],
    ) -> Predictions:
        embedded = tuple(
            jax.tree.map(lambda leaf, at=at: leaf.at[at].get(mode="promise_in_bounds"), store)
            for store, at in zip(stores, places, strict=True)
        )
        method = self.model.predict_embedded
        predictions: Any = self.model.apply({"params": params}, embedded, present, method=method)
        return predictions
