"""Absolute positions for an image embedding that has none: an addition to the dense prompt.

TinyViT knows where a pixel is only relative to its window: it has relative attention biases and
convolutions, and SAM's ViT has `pos_embed` besides. Therefore class tokens on TinyViT's embedding
confuse right and left organs. A `PositionLift` adds to every cell of the embedding a
linear function of the cell's position. It starts at zero, so that the network computes the same as
before. A plain SAM has no place for it, so a network with a lift cannot be exported as one. We know
of no paper that has it.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

LiftName = Literal["none", "fourier", "coordinates", "cosines", "table"]
TABLE = 8  # cells along one side of the table; our choice
COSINES = 4  # cosines along each axis, the constant one included; our choice


class PositionLift(nn.Module):
    """Maps the grid's positional encoding (1, C, h, w) to an addition (1, C, h, w).

    It is linear without bias in functions of the position:

    - fourier: SAM's own positional encoding, C random Fourier features (65,536 weights for C = 256)
    - coordinates: x and y from -1 to 1
    - cosines: the products of the first 4 cosines of each axis (a low-pass of any function)
    - table: a value for each of 8 x 8 cells, interpolated bilinearly, as a small `pos_embed`

    kind: one of these; channels: C.
    """

    def __init__(self, kind: LiftName, channels: int):
        super().__init__()
        self.kind = kind
        inputs = {"fourier": channels, "coordinates": 2, "cosines": COSINES**2, "table": TABLE**2}
        self.weight = nn.Parameter(torch.zeros(channels, inputs[kind]))

    def forward(self, position: Tensor) -> Tensor:
        functions = position
        if self.kind != "fourier":
            functions = features(self.kind, *position.shape[2:]).to(position)[None]
        return functional.conv2d(functions, self.weight[..., None, None])


def features(kind: LiftName, height: int, width: int) -> Tensor:
    """Return the functions of the position (F, height, width) that a lift is linear in."""
    if kind == "table":
        cells = torch.eye(TABLE**2).unflatten(1, (1, TABLE, TABLE))
        wide = functional.interpolate(cells, (height, width), mode="bilinear")
        return wide[:, 0]
    y, x = ((torch.arange(n) + 0.5) / n for n in (height, width))
    if kind == "coordinates":
        grid = torch.meshgrid(2 * y - 1, 2 * x - 1, indexing="ij")
        return torch.stack(grid[::-1])
    orders = torch.arange(COSINES)[:, None]
    down, right = (torch.cos(math.pi * orders * axis) for axis in (y, x))
    return torch.einsum("ah,bw->abhw", down, right).flatten(0, 1)
