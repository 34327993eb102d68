"""Benchmarks of this library against the published implementations, in one run."""
