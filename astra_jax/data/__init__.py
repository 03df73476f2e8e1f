"""Rooms for what lies on disk and what the training step receives."""
