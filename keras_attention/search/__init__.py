"""Search: greedy and beam over a step function."""
