"""Networks without SAM, trained from random weights: what an adapted SAM is measured against."""

import torch
from torch import nn

from medsaga_lib.errors import UserError

SIZE = 256  # pixels along one side; our choice, the pocket SAM's


def _unet(classes: int) -> nn.Module:
    from monai.networks.nets import UNet

    # Our choice: the depth and residual units of MONAI's own examples, at a width that costs about
    # as much as the pocket SAM.
    return UNet(2, 3, classes + 1, (16, 32, 64, 128, 256), (2, 2, 2, 2), num_res_units=2)


NETWORKS = {"unet": _unet}
MULTIPLE = 16  # pixels: what every network's downsampling divides


class FromScratch(nn.Module):
    """A network of `NETWORKS` that is fed and read as `heads.ClassTokens` is."""

    def __init__(self, name: str, size: int, classes: int):
        super().__init__()
        self.network, self.size = NETWORKS[name](classes), size

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (B, K + 1, S, S) of images (B, 3, S, S) in [0, 1]."""
        return self.network(2 * images - 1)


def network_size(size: int | None) -> int:
    """The size asked for, or `SIZE`; UserError if a network cannot halve it often enough."""
    size = SIZE if size is None else size
    if size <= 0 or size % MULTIPLE:
        nearest = max(MULTIPLE, round(size / MULTIPLE) * MULTIPLE)
        raise UserError(f"Input size {size} cannot be halved four times; choose {nearest}.")
    return size
