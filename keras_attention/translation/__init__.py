"""Text in, text out: a run directory as a translator."""
