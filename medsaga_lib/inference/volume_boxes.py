"""Box prompts for the slices of a volume, for all objects of a slice at once.

There are two published ways: the same 2-D box on each slice (SAMIL), or outwards from the middle
slice, with each next box from the last mask (LiteMedSAM). Objects do not affect each other, so
their order does not matter. LiteMedSAM's script walks through the volume once per object.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from medsaga_lib.data.prompts import box_of
from medsaga_lib.models.feeding import resize_area
from medsaga_lib.models.frame import Frame

SIDE = 256  # side of LiteMedSAM's input in pixels
SHIFT = 3  # pixels of this input between the last mask and the box for the next slice

InputBoxes = NDArray[np.floating]  # (n, 4) x0, y0, x1, y1 in pixels of the network's input
# (z, boxes, objects) to the masks (H, W) of the boxes on slice z; `objects` are their indices
Segment = Callable[[int, InputBoxes, Sequence[int]], Sequence[NDArray[np.bool_]]]
NextBox = Callable[[NDArray[np.bool_]], NDArray | None]


def same_box(boxes: InputBoxes, spans: Sequence[range], depth: int, segment: Segment) -> None:
    """Segment every slice of an object's span with its own box; arguments as in `propagate`."""
    for z in range(depth):
        objects = [i for i, span in enumerate(spans) if z in span]
        if objects:
            segment(z, boxes[objects], objects)


def propagate(
    boxes: InputBoxes, spans: Sequence[range], depth: int, segment: Segment, next_box: NextBox
) -> None:
    """Segment each object from its middle slice to its last, then from the middle to its first.

    Args:
        boxes: for the middle slices, and wherever the last mask was empty.
        spans: slices of each object. A span may end beyond the volume, because some boxes exclude
            their last slice; its middle is then that of the whole span.
        depth: slices of the volume.
        segment: called with increasing, then with decreasing z.
        next_box: the box for the next slice, or None for an empty mask.
    """
    middles = [_middle(span) for span in spans]
    ends = [min(span.stop, depth) for span in spans]
    up = [range(middle, end) for middle, end in zip(middles, ends, strict=True)]
    down = [range(span.start, middle) for middle, span in zip(middles, spans, strict=True)]
    after_middle = boxes.copy()
    current = boxes.copy()

    def ask(z: int, parts: Sequence[range]) -> None:
        objects = [i for i, part in enumerate(parts) if z in part]
        if not objects:
            return
        for i, mask in zip(objects, segment(z, current[objects], objects), strict=True):
            found = next_box(mask)
            current[i] = boxes[i] if found is None else found
            if z == middles[i]:
                after_middle[i] = current[i]

    for z in range(min(middles), max(ends)):
        ask(z, up)
    current = after_middle.copy()
    for z in range(max(middles) - 1, min(s.start for s in spans) - 1, -1):
        ask(z, down)


def both_ways(spans: Sequence[range]) -> set[int]:
    """Return slices that `propagate` visits twice: above one object's middle, below another's."""
    up = {z for span in spans for z in span if z >= _middle(span)}
    return up & {z for span in spans for z in span if z < _middle(span)}


def _middle(span: range) -> int:
    return (span.start + span.stop - 1) // 2


def next_box(mask: NDArray[np.bool_]) -> NDArray | None:
    """Return the box (4,) for the next slice from this slice's mask (H, W); None if it is empty.

    The box is in pixels of LiteMedSAM's input, and `SHIFT` larger than the mask on each side.
    LiteMedSAM's script multiplies the mask by the number of its object before it resizes and rounds
    it. An edge pixel that is covered by 1/3 is then rounded to 0 for object 1, but to 1 for object
    2, so the same mask has a larger box as object 2. Here every object is treated as object 1.
    """
    height, width = mask.shape
    small = resize_area(mask.astype(np.uint8), Frame((height, width), SIDE).inner) > 0
    if not small.any():
        return None
    return np.clip(box_of(small) + np.repeat([-SHIFT, SHIFT], 2), 0, SIDE)
