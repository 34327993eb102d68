"""Networks without SAM, trained from random weights: what an adapted SAM is measured against."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn

from medsaga_lib.backbones.dae_former import DAEFormer
from medsaga_lib.errors import UserError

SIZE = 256  # pixels along one side; our choice, the pocket SAM's


def _unet(classes: int) -> nn.Module:
    from monai.networks.nets import UNet

    # Our choice: the depth and residual units of MONAI's own examples, at a width that costs about
    # as much as the pocket SAM.
    return UNet(2, 3, classes + 1, (16, 32, 64, 128, 256), (2, 2, 2, 2), num_res_units=2)


def _segresnet(classes: int) -> nn.Module:
    from monai.networks.nets import SegResNet

    # Our choice: MONAI's own depth, at a width that makes it as large as the U-Net.
    return SegResNet(2, init_filters=16, in_channels=3, out_channels=classes + 1)


class Network(NamedTuple):
    """How to build a network for a number of foreground classes, and how often it halves a side."""

    build: Callable[[int], nn.Module]
    halvings: int


NETWORKS = {
    "unet": Network(_unet, 4),
    "segresnet": Network(_segresnet, 3),
    "dae_former": Network(lambda classes: DAEFormer(classes + 1), 4),
}


class FromScratch(nn.Module):
    """A network of `NETWORKS` that is fed and read as `heads.ClassTokens` is."""

    def __init__(self, name: str, size: int, classes: int):
        super().__init__()
        self.network, self.size = NETWORKS[name].build(classes), size

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (B, K + 1, S, S) of images (B, 3, S, S) in [0, 1]."""
        return self.network(2 * images - 1)


def network_size(name: str, size: int | None) -> int:
    """The size asked for, or `SIZE`; UserError if that network cannot halve it often enough.

    A single pixel at the bottom is too little: it is its own mean, which instance norm takes off.
    """
    size = SIZE if size is None else size
    halvings = NETWORKS[name].halvings
    multiple = 2**halvings
    if size < 2 * multiple or size % multiple:
        nearest = max(2 * multiple, round(size / multiple) * multiple)
        raise UserError(
            f"Input size {size} cannot be halved {halvings} times, as {name} does; "
            f"choose {nearest}."
        )
    return size
