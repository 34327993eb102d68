"""Boxes from a user: typed, or stored in an npz file as in the CVPR24 challenge."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medsaga_lib.data.quiet import quiet
from medsaga_lib.errors import UserError

Boxes = NDArray[np.float64]  # (N, 4) x0, y0, x1, y1, or (N, 6) x0, y0, z0, x1, y1, z1; pixels


def read_boxes(words: Sequence[str]) -> Boxes:
    """Read typed boxes: "x0,y0,x1,y1" each, or "x0,y0,z0,x1,y1,z1" for volumes.

    Raises:
        UserError: a box is not made of numbers, does not have 4 or 6 of them, or differs from the
            first box in their number.
    """
    boxes = []
    for word in words:
        try:
            boxes.append([float(number) for number in word.split(",")])
        except ValueError as error:
            raise UserError(f"--box {word} is not made of numbers; write x0,y0,x1,y1.") from error
        if len(boxes[-1]) not in (4, 6):
            raise UserError(
                f"--box {word} has {len(boxes[-1])} numbers; write x0,y0,x1,y1, or for a volume "
                "x0,y0,z0,x1,y1,z1."
            )
        if len(boxes[-1]) != len(boxes[0]):
            raise UserError(
                f"--box {word} and --box {words[0]} differ in their number of coordinates; "
                "give only boxes for images, or only boxes for volumes."
            )
    return np.array(boxes, dtype=np.float64)


def stored_boxes(path: Path) -> Boxes:
    """Read the array `boxes` of an npz file, as in the CVPR24 challenge.

    Raises:
        UserError: the file is not npz, or it has no boxes of 4 or 6 numbers.
    """
    way_out = "give --box, or an npz file with `imgs` and `boxes`"
    if path.suffix.lower() != ".npz" or not path.is_file():
        raise UserError(f"{path} contains no boxes; {way_out}.")
    try:
        with quiet, np.load(path, allow_pickle=False) as arrays:
            boxes = np.asarray(arrays.get("boxes", []), np.float64)
    except ValueError as error:  # text, or objects
        raise UserError(
            f"The array `boxes` of {path} is not made of numbers; {way_out}."
        ) from error
    except Exception as error:  # of zip, of deflate, of the array's header
        raise UserError(
            f"{path} cannot be read ({type(error).__name__}); copy or export it again."
        ) from error
    if boxes.ndim != 2 or boxes.shape[1] not in (4, 6) or not len(boxes):
        raise UserError(f"{path} has no array `boxes` of shape (N, 4) or (N, 6); {way_out}.")
    return boxes


def require_boxes(boxes: Boxes, shape: tuple[int, ...]) -> None:
    """Raise UserError unless every box lies in an image (H, W) or volume (D, H, W).

    Corners are pixels: both may be the same, and the last one is H - 1. H is accepted too, because
    some boxes end before their second corner.
    """
    dimensions, size = boxes.shape[1] // 2, "x".join(map(str, reversed(shape)))
    if dimensions != len(shape):
        what, way_out = "a volume", "x0,y0,z0,x1,y1,z1"
        if len(shape) == 2:
            what, way_out = "an image", "x0,y0,x1,y1"
        raise UserError(f"A {dimensions}-D box does not fit {what} of {size}; write {way_out}.")
    limits = np.array(shape[::-1])  # x, y and z
    for box in boxes:
        first, last = box[:dimensions], box[dimensions:]
        shown = ",".join(f"{number:g}" for number in box)
        if not np.isfinite(box).all() or (last < first).any():
            raise UserError(
                f"The box {shown} is empty; its second corner must not be smaller than its first."
            )
        if (first < 0).any() or (first >= limits).any() or (last > limits).any():
            raise UserError(f"The box {shown} is not between 0 and {size}; correct its corners.")
