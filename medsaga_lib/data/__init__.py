"""Folders, pictures, splits, transforms, phantoms."""
