"""Draws a chest X-ray phantom: the thickness of tissue, air and bone along each ray, then exposure.

The label map follows the chest data of the MedSAGa paper: 1 right lung, 2 left lung, 3 heart. The
patient's right is on the left side of the image. All shapes and ranges are our choice: they follow
the anatomy and were adjusted until the lungs matched the positions of the masks in
cxr_hannover_lungs. Lengths: x is a fraction of the image width, measured from the spine; y is a
fraction of the image height, measured from the top.
"""

from scipy import ndimage

from medsaga_lib.data.chest.anatomy import Anatomy, Projection, View
from medsaga_lib.data.chest.body import Body
from medsaga_lib.data.chest.exposure import collimate, devices, expose, pose
from medsaga_lib.data.chest.profiles import Array, Random

LABELS = {1: "right lung", 2: "left lung", 3: "heart"}


def draw_chest(
    anatomy: Anatomy, view: View, projection: Projection, random: Random
) -> tuple[Array, Array]:
    """Draw one image (uint8, H x W) and its label map (uint8) with the values of `LABELS`."""
    body = Body(anatomy, view, projection)
    dense, labels = body.density(random), body.labels
    matrix, offset = pose(view, dense.shape)
    dense = ndimage.affine_transform(dense, matrix, offset, order=1, mode="nearest")
    labels = ndimage.affine_transform(labels, matrix, offset, order=0, mode="constant")
    if projection == "AP":
        dense += devices(dense.shape, random)
    picture = expose(dense, view, random)
    return collimate(picture, labels, random)
