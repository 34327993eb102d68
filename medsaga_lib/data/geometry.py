"""The orientation of volumes: one inside the library, that of the file outside.

Inside, the axes of a volume (z, y, x) run from feet to head, from front to back and from the
patient's right to left, or as near to that as the file's axes allow (LPS). An axial slice then
looks as in radiology. Results return to the grid and the header of their file.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from nibabel import orientations

Array = np.ndarray

INSIDE = ("L", "P", "S")  # directions in which the indices x, y and z grow
RAS_OF_LPS = np.diag([-1.0, -1, 1, 1])  # ITK's positions grow to L, P and S, NIfTI's to R, A and S


@dataclass(frozen=True)
class Geometry:
    """The grid of a file.

    affine: (4, 4), maps a voxel (x, y, z) of the file to mm; the positions grow to the patient's
        right, front and head (RAS), as in NIfTI.
    known: whether the file gives an orientation; if not, its axes are taken to be `INSIDE`.
    header: of a NIfTI file, as nibabel reads it; results have the same.
    frame: UID of the frame of reference of a DICOM series, or "".
    """

    affine: Array
    known: bool = True
    header: Any = field(default=None, repr=False, compare=False)
    frame: str = field(default="", compare=False)

    def inside(self, values: Array) -> Array:
        """Return an array of the file (x, y, z) in the orientation of the library (z, y, x)."""
        turned = orientations.apply_orientation(values, self._order)
        return np.ascontiguousarray(turned.T)

    def outside(self, values: Array) -> Array:
        """Return an array of the library (z, y, x) in the orientation of the file (x, y, z)."""
        back = orientations.ornt_transform(_INSIDE, self._start)
        return np.asarray(orientations.apply_orientation(values.T, back))

    def spacing(self) -> tuple[float, ...]:
        """Return the spacing in mm along the axes (z, y, x) of the library."""
        lengths = np.linalg.norm(self.affine[:3, :3], axis=0)
        order = np.argsort(self._order[:, 0])  # the file's axis of each axis (x, y, z)
        return tuple(float(lengths[axis]) for axis in order[::-1])

    def affine_inside(self, shape: tuple[int, ...]) -> Array:
        """Return the (4, 4) affine of the library's voxels (x, y, z); `shape` is (D, H, W)."""
        of_file = self.shape_outside(shape)[::-1]
        return self.affine @ orientations.inv_ornt_aff(self._order, of_file)

    def shape_outside(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape (z, y, x) of the file's array for that of the library's, (D, H, W)."""
        return self.outside(np.empty(shape, bool)).shape[::-1]

    def boxes_inside(self, boxes: Array, shape: tuple[int, ...]) -> Array:
        """Return boxes (N, 6) of the file's voxels as boxes of the library's voxels.

        boxes: x0, y0, z0, x1, y1, z1 each. shape: of the volume in the library, (D, H, W).
        """
        corners = boxes.reshape(-1, 2, 3)
        turned = np.empty_like(corners)
        for axis, (target, direction) in enumerate(self._order.astype(int)):
            last = shape[::-1][target] - 1
            along = corners[:, :, axis]
            turned[:, :, target] = along if direction > 0 else last - along
        return np.sort(turned, axis=1).clip(0).reshape(-1, 6)  # a box may end one voxel outside

    @property
    def affine_lps(self) -> Array:
        """The affine for positions that grow to the patient's left, back and head (ITK, DICOM)."""
        return RAS_OF_LPS @ self.affine

    @property
    def codes(self) -> str:
        """The directions in which the file's x, y and z grow, such as "RAS"; "?" if not known."""
        return "".join(orientations.aff2axcodes(self.affine)) if self.known else "?"

    @cached_property
    def _start(self) -> Array:
        return orientations.io_orientation(self.affine)

    @cached_property
    def _order(self) -> Array:
        return orientations.ornt_transform(self._start, _INSIDE)


def itk_affine(spacing: Any, origin: Any, direction: Any) -> Array:
    """Return the affine (4, 4) of a 3-D image of ITK, in RAS."""
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(direction, (3, 3)) * np.asarray(spacing)
    affine[:3, 3] = origin
    return RAS_OF_LPS @ affine


def displacement(one: Array, other: Array, shape: tuple[int, ...]) -> float:
    """Return how far apart two grids are: the largest distance of a corner, in voxels of `one`.

    one, other: affines (4, 4) of voxels (x, y, z). shape: (D, H, W) of both.
    """
    ends = np.array(np.meshgrid(*[(0, length - 1) for length in shape[::-1]])).reshape(3, -1)
    corners = np.vstack([ends, np.ones(ends.shape[1])])
    moved = np.linalg.solve(one, other @ corners)
    with np.errstate(over="ignore"):  # of damaged headers: infinitely far apart
        return float(np.linalg.norm(moved[:3] - ends, axis=0).max())


_INSIDE = orientations.axcodes2ornt(INSIDE)
