"""Networks from scratch, without SAM: baselines for an adapted SAM, with random initial weights."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import nn

from medsaga_lib.errors import UserError
from medsaga_lib.models.dae_former import DAEFormer
from medsaga_lib.models.linear import with_fast_layers

NetworkName = Literal["unet", "segresnet", "dae_former"]
SIZE = 256  # pixels along one side; our choice, as for the pocket SAM


def _unet(classes: int) -> nn.Module:
    from monai.networks.nets import UNet

    # Our choice: the depth and the residual units of MONAI's examples, and a width with about the
    # cost of the pocket SAM.
    return UNet(2, 3, classes + 1, (16, 32, 64, 128, 256), (2, 2, 2, 2), num_res_units=2)


def _segresnet(classes: int) -> nn.Module:
    from monai.networks.nets import SegResNet

    # Our choice: MONAI's default depth, and a width with about the size of the U-Net.
    return SegResNet(2, init_filters=16, in_channels=3, out_channels=classes + 1)


class Network(NamedTuple):
    """A function that builds a network for K foreground classes, and its number of halvings."""

    build: Callable[[int], nn.Module]
    halvings: int


NETWORKS: dict[NetworkName, Network] = {
    "unet": Network(_unet, 4),
    "segresnet": Network(_segresnet, 3),
    "dae_former": Network(lambda classes: DAEFormer(classes + 1), 4),
}


class FromScratch(nn.Module):
    """A network of `NETWORKS` with the input and output of `heads.ClassTokens`."""

    def __init__(self, name: NetworkName, size: int, classes: int):
        super().__init__()
        self.network, self.size = NETWORKS[name].build(classes), size
        with_fast_layers(self.network)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits (B, K + 1, S, S) of images (B, 3, S, S) in [0, 1]."""
        return self.network(2 * images - 1)


def network_size(name: NetworkName, size: int | None) -> int:
    """Return `size`, default `SIZE`; raise UserError if the network cannot halve it often enough.

    The smallest feature map needs more than 1 pixel, because instance normalisation subtracts the
    mean, which would leave 0.
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
