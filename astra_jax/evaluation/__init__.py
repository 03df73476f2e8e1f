"""The official metric."""
