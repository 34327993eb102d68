"""Methods that change only the optimizer, and learning-rate schedules."""
