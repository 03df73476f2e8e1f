"""The classification head and the displacement heads (section 3.3)."""

from flax import linen as nn
from jaxtyping import Array, Float

from astra_jax.model.config import ModelConfig
from astra_jax.model.dropout import Dropout
from astra_jax.model.layers import Linear, output_layer


class PlainHead(nn.Module):
    """Dropout, linear, ReLU, dropout, linear to background and classes.

    The classification head's logits, and the displacement head without uncertainty, in float32.
    """

    config: ModelConfig

    @nn.compact
    def __call__(
        self, x: Float[Array, "clip position dim"], train: bool
    ) -> Float[Array, "clip position class"]:
        """Raw outputs, one a class."""
        cfg = self.config
        drop = Dropout(cfg.head_dropout)
        x = nn.relu(Linear(cfg.dim, cfg.compute_dtype, name="hidden")(drop(x, train)))
        return output_layer(cfg.num_classes + 1, "output")(drop(x, train))


class UncertaintyHead(nn.Module):
    """Mean and log variance of a Gaussian displacement, in output positions and float32."""

    config: ModelConfig

    @nn.compact
    def __call__(
        self, x: Float[Array, "clip position dim"], train: bool
    ) -> tuple[Float[Array, "clip position class"], Float[Array, "clip position class"]]:
        """The displacement's mean and the log of its variance."""
        cfg = self.config
        drop = Dropout(cfg.head_dropout)
        for i in range(2):
            x = nn.relu(Linear(cfg.dim, cfg.compute_dtype, name=f"shared_{i}")(drop(x, train)))
        mean = output_layer(cfg.num_classes + 1, "mean")(drop(x, train))
        log_variance = output_layer(cfg.num_classes + 1, "log_variance")(drop(x, train))
        return mean, log_variance
