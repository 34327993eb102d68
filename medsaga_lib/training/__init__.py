"""Training: setup, loop, batches, losses, and the folder of a run."""
