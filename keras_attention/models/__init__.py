"""The encoder-decoder: its config, its parts, and the model built of them."""
