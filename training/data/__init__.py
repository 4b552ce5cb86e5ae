"""Training text: reading, splits, batches, shards, downloads."""
