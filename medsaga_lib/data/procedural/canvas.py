"""Where a family of scenes paints its objects."""

from collections.abc import Sequence

import numpy as np

BACKGROUND = 0  # the label of pixels that belong to no object
GROUP = -1  # the kind of an object that consists of its parts alone
MAXIMUM_OBJECTS = 255  # labels are uint8


class Canvas:
    """Where a family paints: objects, later ones in front; each may be part of another.

    Pixels are given as flat indices into the picture, row by row.
    """

    def __init__(self, size: int):
        self.size = size
        self.labels = np.zeros(size * size, np.uint8)  # the innermost object of each pixel
        self.kinds = [0]  # of each label; labels of one kind look alike
        self.parents = [BACKGROUND]
        self.light: np.ndarray | None = None  # (S, S) float32: what is seen beside the tones
        self.tone = 1.0  # times the contrast: how much the labels' tones differ
        # [m, l]: l is m, a part of it, or shared by it
        self.covers = np.eye(MAXIMUM_OBJECTS + 1, dtype=bool)

    def paint(self, pixels: np.ndarray, parent: int = BACKGROUND, kind: int | None = None) -> int:
        """Adds an object (n,) of pixels, clipped to its parent; returns its label.

        Returns the background, and paints nothing, once all labels are used.
        """
        outline = parent  # a group has no outline of its own
        while outline != BACKGROUND and self.kinds[outline] == GROUP:
            outline = self.parents[outline]
        if outline != BACKGROUND:
            pixels = pixels[self.covers[outline][self.labels[pixels]]]
        new = self._add(parent, max(self.kinds) + 1 if kind is None else kind)
        if new != BACKGROUND:
            self.labels[pixels] = new
        return new

    def group(self, parent: int = BACKGROUND) -> int:
        """Adds an object that consists of the objects painted into it afterwards."""
        return self._add(parent, GROUP)

    def wall(self, whole: int) -> int:
        """Adds the object that a whole is without its parts, which has no outline of its own."""
        new = self._add(BACKGROUND, GROUP)
        if new != BACKGROUND:
            self.covers[new, whole] = True
        return new

    def overlap(self, pixels: np.ndarray, objects: Sequence[int]) -> None:
        """Gives (n,) pixels to several objects at once, which are seen through each other there.

        What they share has the background's tone, so such a canvas needs a light and no tones.
        """
        new = self._add(BACKGROUND, GROUP)
        if new == BACKGROUND:
            return
        self.covers[new, new] = False  # what they share is no object
        self.labels[pixels] = new
        for this in objects:
            while this != BACKGROUND:
                self.covers[this, new] = True
                this = self.parents[this]

    def _add(self, parent: int, kind: int) -> int:
        new = len(self.parents)
        if new > MAXIMUM_OBJECTS:
            return BACKGROUND
        self.parents.append(parent)
        self.kinds.append(kind)
        while parent != BACKGROUND:
            self.covers[parent, new] = True
            parent = self.parents[parent]
        return new
