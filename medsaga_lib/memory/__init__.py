"""The memory of a training step, measured or predicted."""
