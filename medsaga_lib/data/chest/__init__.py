"""Draws a chest X-ray phantom: thickness of tissue, air and bone along each ray, then an exposure.

The label map follows the MedSAGa paper's chest data: 1 right lung, 2 left lung, 3 heart; the
patient's right is on the picture's left. All shapes and ranges are our choice, drawn after
anatomy and adjusted until lungs lay where the masks of cxr_hannover_lungs have them.
Lengths: x is a fraction of the picture's width from the spine, y of its height from the top.
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
    """One picture (uint8, H x W) and its label map (uint8): 1 right lung, 2 left lung, 3 heart."""
    body = Body(anatomy, view, projection)
    dense, labels = body.density(random), body.labels
    matrix, offset = pose(view, dense.shape)
    dense = ndimage.affine_transform(dense, matrix, offset, order=1, mode="nearest")
    labels = ndimage.affine_transform(labels, matrix, offset, order=0, mode="constant")
    if projection == "AP":
        dense += devices(dense.shape, random)
    picture = expose(dense, view, random)
    return collimate(picture, labels, random)
