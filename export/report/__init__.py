"""The report of an export, its timings, and estimates before training."""
