"""Published checkpoints of PyTorch to ours; only reading their files needs torch."""

from astra_jax.torch_import.checkpoint import from_state_dict

__all__ = ["from_state_dict"]
