"""Backbones: what the recipes adapt."""
