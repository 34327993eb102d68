"""Polygons, circles, rectangles and runs as masks.

A pixel is the square from its whole coordinates to the next ones, as in COCO and Labelme. Programs
draw its border differently: OpenCV, Pillow and `skimage.draw` put pixel centres at whole numbers
and include the border, which makes a square of 3 x 3 pixels one of 4 x 4. Here a shape has the
pixels whose centres it holds. COCO's polygons have the pixels that COCO's own program gives them,
which are other ones at some places of the border.
"""

from collections import Counter
from typing import Any

import numpy as np

from medsaga_lib.data.folder import LARGEST_LABEL
from medsaga_lib.errors import UserError

Array = np.ndarray
Points = list[tuple[float, float]]
FAR = 10.0  # our choice: a point further outside, in sides of the picture, is a mistake
MOST_PIXELS = 178_956_970  # Pillow 13 opens no larger picture


def is_size(height: Any, width: Any) -> bool:
    """Return whether two values of a document can be the sides of a picture."""
    sides = (height, width)
    return all(type(n) is int and n > 0 for n in sides) and height * width <= MOST_PIXELS


def polygon(points: Points, shape: tuple[int, int]) -> Array:
    """Return the pixels (H, W) whose centres lie in a polygon of points (x, y)."""
    from skimage.draw import polygon2mask

    return np.asarray(polygon2mask(shape, np.array(points)[:, ::-1] - 0.5))


def rectangle(points: Points, shape: tuple[int, int]) -> Array:
    """Return the pixels (H, W) whose centres lie between two opposite corners (x, y)."""
    y, x = _centres(shape)
    (left, top), (right, bottom) = np.sort(np.array(points), axis=0)
    return np.asarray((left <= x) & (x < right) & (top <= y) & (y < bottom))


def circle(points: Points, shape: tuple[int, int]) -> Array:
    """Return the pixels (H, W) whose centres lie in a circle: its centre, a point on its edge."""
    y, x = _centres(shape)
    (centre_x, centre_y), edge = points
    radius = np.hypot(edge[0] - centre_x, edge[1] - centre_y)
    return np.asarray((x - centre_x) ** 2 + (y - centre_y) ** 2 < radius**2)


def _centres(shape: tuple[int, int]) -> tuple[Array, Array]:
    y, x = np.ogrid[: shape[0], : shape[1]]
    return y + 0.5, x + 0.5


def coco_mask(segmentation: Any, shape: tuple[int, int]) -> Array:
    """Return the pixels (H, W) of a COCO `segmentation`: polygons, or an RLE of either kind.

    pycocotools draws the polygons. It is not asked for the pixels of an RLE: version 2.0.11 returns
    memory that it has not set if the runs are too short for the picture.

    Raises:
        UserError: the segmentation is not of this form or does not fit the picture.
    """
    if isinstance(segmentation, list):
        from pycocotools import mask

        parts = [np.ravel(points(_in_pairs(part), shape)).tolist() for part in segmentation]
        if not parts:
            raise UserError("it has no polygon; remove it, or draw its outline.")
        return np.asarray(mask.decode(mask.merge(mask.frPyObjects(parts, *shape))), bool)
    if not isinstance(segmentation, dict) or segmentation.get("size") != list(shape):
        raise UserError(
            f"it is neither a list of polygons nor an RLE with the size {list(shape)}; export it "
            "again."
        )
    counts = segmentation.get("counts")
    lengths: Any = _lengths(counts) if isinstance(counts, str) else counts
    whole = isinstance(lengths, list) and all(type(n) is int and n >= 0 for n in lengths)
    if not whole or sum(lengths) != shape[0] * shape[1]:
        raise UserError("its RLE does not cover the picture exactly; export it again.")
    values = np.arange(len(lengths)) % 2 == 1  # background first
    return np.repeat(values, lengths).reshape(shape, order="F")  # column by column


def points(given: Any, shape: tuple[int, int], least: int = 3) -> Points:
    """Return the points (x, y) of a shape as numbers.

    Raises:
        UserError: there are fewer than `least`, or one is not finite or far outside the picture.
    """
    try:
        numbers = np.array(given, float)
    except (TypeError, ValueError):
        numbers = np.empty(0)
    if numbers.ndim != 2 or numbers.shape[1] != 2 or len(numbers) < least:
        raise UserError(f"it has no list of {least} or more points (x, y); draw it again.")
    if not (abs(numbers) <= FAR * max(shape)).all():  # False for NaN
        raise UserError("it has a point far outside the picture; draw it again.")
    return [(float(x), float(y)) for x, y in numbers]


def _in_pairs(flat: Any) -> Any:
    """Return [x, y, x, y] as [[x, y], [x, y]]; anything else unchanged, for `points` to refuse."""
    if isinstance(flat, list) and len(flat) % 2 == 0:
        return [flat[i : i + 2] for i in range(0, len(flat), 2)]
    return flat


def _lengths(text: str) -> list[int]:
    """Return the run lengths of a compressed RLE, as `rleFrString` of COCO's maskApi.c does.

    A number has 5 bits a character, the lowest first, with 32 for more to come; from the fourth run
    on it is the difference to the run before the last.
    """
    lengths: list[int] = []
    number = shift = 0
    for character in text:
        bits = ord(character) - 48
        number |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            number -= 1 << shift
        lengths.append(number + (lengths[-2] if len(lengths) > 2 else 0))
        number = shift = 0
    return lengths


def paint(
    objects: list[tuple[int, Array]], shape: tuple[int, int], rule: str, counted: Counter[str]
) -> Array:
    """Draw objects over each other, the last on top, and return the label map (H, W).

    objects: value and pixels of each, as places in the flat picture. rule: the sentence under which
    the pixels are counted that a later object takes from one of another value.

    Raises:
        UserError: a value is above `LARGEST_LABEL`.
    """
    labels = np.zeros(shape[0] * shape[1], np.int64)
    for value, pixels in objects:
        before = labels[pixels]
        counted[rule] += int(((before != 0) & (before != value)).sum())
        labels[pixels] = value
    if labels.max(initial=0) > LARGEST_LABEL:
        raise UserError(f"A picture has more than {LARGEST_LABEL} objects; omit --instances.")
    return labels.reshape(shape)
