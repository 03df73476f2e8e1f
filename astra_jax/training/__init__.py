"""Losses, optimiser, checkpoints and the loop."""
