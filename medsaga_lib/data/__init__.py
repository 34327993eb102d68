"""Data sets: folders, images, splits, training samples, augmentation and phantoms."""
