"""Recurrent stacks and cells, with attention and without."""
