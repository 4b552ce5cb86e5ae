"""The training loop: set-up, epochs, validation, checkpoints."""
