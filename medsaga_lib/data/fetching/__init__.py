"""Fetches official data sets: their facts, archives, layouts and protocols."""
