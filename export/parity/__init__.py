"""Comparison of artefacts with Keras."""
