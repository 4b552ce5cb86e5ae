"""Luong attention for Keras 3."""
