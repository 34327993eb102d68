"""Boxes in a volume: from slice to slice, all objects of a slice at once.

Two published ways: the same 2-D box on each slice (SAMIL), or from the middle slice outwards, each
next box from the last mask (LiteMedSAM). Objects do not know of each other, so that their order
does not matter; LiteMedSAM's script walks through the volume once for each.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Boxes = NDArray[np.floating]  # (n, 4) x0, y0, x1, y1 in pixels of the network's input
# Masks (H, W) of some boxes on slice z; `objects` are their places in the list of all
Segment = Callable[[int, Boxes, Sequence[int]], Sequence[NDArray[np.bool_]]]
NextBox = Callable[[NDArray[np.bool_]], NDArray | None]


def same_box(boxes: Boxes, spans: Sequence[range], depth: int, segment: Segment) -> None:
    """Asks for each object's own box on every slice of its span; arguments as in `propagate`."""
    for z in range(depth):
        objects = [i for i, span in enumerate(spans) if z in span]
        if objects:
            segment(z, boxes[objects], objects)


def propagate(
    boxes: Boxes, spans: Sequence[range], depth: int, segment: Segment, next_box: NextBox
) -> None:
    """Asks from each object's middle slice up to its last, then from there down to its first.

    Args:
        boxes: for the middle slices, and wherever the last mask was empty.
        spans: slices of each object; one may end beyond the volume, as it does where a box's last
            slice is meant as excluded, and its middle is then that of the whole span.
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
    """Slices that `propagate` visits twice: above one object's middle and below another's."""
    up = {z for span in spans for z in span if z >= _middle(span)}
    return up & {z for span in spans for z in span if z < _middle(span)}


def _middle(span: range) -> int:
    return (span.start + span.stop - 1) // 2
