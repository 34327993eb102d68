"""Draws thumbnails of images and volumes with the contours of their labels."""

import io
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

Array = np.ndarray

SIDE = 256  # pixels of the longer side; our choice: 5 to 10 kB each, sharp at 180 CSS pixels
QUALITY, EFFORT = 80, 2  # of WebP; our choice: 7 kB in 4 ms, 6.8 kB would take 6 ms
HALO, LINE = 4, 2  # widths of a contour's dark border and of the contour, in pixels
LARGEST_CODE = 2**16 - 1  # larger ids of instances are numbered anew
FRACTION = 4  # OpenCV takes the positions of lines in units of 2**-4 pixels


class Thumbnail(NamedTuple):
    """A picture of a case as WebP.

    position: (number, count) of the slice that is shown, from 1; None for an image.
    values: label values in the picture.
    """

    webp: bytes
    width: int
    height: int
    position: tuple[int, int] | None
    values: tuple[int, ...]


def thumbnail(
    pixels: Array,
    spacing: tuple[float, ...],
    labels: Array | None,
    colours: Mapping[int, str],
) -> Thumbnail:
    """Draw an image, or of a volume the axial slice with the largest labelled area.

    Args:
        pixels: (H, W), (H, W, 3) or (D, H, W) in [0, 1].
        spacing: of the axes without colours; the ratio of the last two gives the picture's shape.
        labels: label map of the same size, (H, W) or (D, H, W); None draws no contours.
        colours: of label values, such as "#0072B2"; that of 0 is for all other values.
    """
    from PIL import Image

    position = None
    if len(spacing) == 3:
        place = _slice_to_show(labels, len(pixels))
        position = (place + 1, len(pixels))
        pixels, labels = pixels[place], None if labels is None else labels[place]
    canvas = _resized(pixels, spacing[-2:])
    values: tuple[int, ...] = ()
    if labels is not None:
        values = _draw_contours(canvas, labels, colours)
    file = io.BytesIO()
    Image.fromarray(canvas).save(file, format="webp", quality=QUALITY, method=EFFORT)
    return Thumbnail(file.getvalue(), canvas.shape[1], canvas.shape[0], position, values)


def _slice_to_show(labels: Array | None, count: int) -> int:
    """Return the slice with the largest labelled area; the middle one if there is none."""
    if labels is None or not labels.any():
        return count // 2
    return int(np.count_nonzero(labels, axis=(1, 2)).argmax())


def _resized(pixels: Array, spacing: tuple[float, ...]) -> Array:
    """Return an image as uint8 (H, W, 3), with square pixels and `SIDE` as its longer side."""
    import cv2

    lengths = np.multiply(pixels.shape[:2], spacing)
    height, width = (max(1, round(SIDE * length / lengths.max())) for length in lengths)
    levels = (255 * pixels).round().astype(np.uint8)
    smaller = height < pixels.shape[0] or width < pixels.shape[1]
    how = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    canvas = cv2.resize(levels, (width, height), interpolation=how)
    return np.ascontiguousarray(canvas if canvas.ndim == 3 else np.stack([canvas] * 3, axis=-1))


def _draw_contours(canvas: Array, labels: Array, colours: Mapping[int, str]) -> tuple[int, ...]:
    """Draw the contours of a label map (H, W) into the canvas; return the values that it has."""
    import cv2
    from scipy.ndimage import find_objects

    if labels.max() > LARGEST_CODE:  # `find_objects` makes a list of this length
        values, codes = np.unique(np.append(labels, 0), return_inverse=True)
        labels = codes[:-1].reshape(labels.shape)
    else:
        values = np.arange(labels.max() + 1)
    scale = np.divide(canvas.shape[1::-1], labels.shape[::-1])
    places = {code: place for code, place in enumerate(find_objects(labels), start=1) if place}
    for code, place in places.items():
        corner = (place[1].start, place[0].start)
        lines = _contours(labels[place] == code, corner, scale)
        tint = _rgb(colours.get(int(values[code]), colours[0]))
        for colour, width in (((0, 0, 0), HALO), (tint, LINE)):
            cv2.polylines(canvas, lines, True, colour, width, cv2.LINE_AA, FRACTION)
    return tuple(int(values[code]) for code in places)


def _contours(mask: Array, corner: tuple[int, int], scale: Array) -> list[Array]:
    """Return the closed contours of a mask in fixed-point pixels (x, y) of the canvas.

    corner: the position (x, y) of the mask in its image. scale: pixels of the canvas for each.
    """
    import cv2

    found, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    return [
        np.rint(((line + np.add(corner, 0.5)) * scale - 0.5) * 2**FRACTION).astype(np.int32)
        for line in found
    ]


def _rgb(colour: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(colour.removeprefix("#")))
