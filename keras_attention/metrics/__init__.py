"""Scores of outputs and alignments, and pictures of them."""
