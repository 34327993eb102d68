"""What changes only the optimizer."""
