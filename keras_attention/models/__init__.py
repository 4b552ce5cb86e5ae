"""The encoder-decoder: its config, its layers, and the model."""
