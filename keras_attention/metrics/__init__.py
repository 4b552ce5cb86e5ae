"""Metrics of outputs and alignments, and their plots."""
