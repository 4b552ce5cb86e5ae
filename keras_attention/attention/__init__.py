"""Attention layers: scores, alignments, windows, masks, one head and several."""
