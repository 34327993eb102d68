"""Several processes that train one network, each on its share of a step's pictures.

    torchrun --nproc-per-node 2 -m -- medsaga_lib.pretraining --out RUN

On two CPU cores two processes of one thread each draw and train 26 pictures a second where one of
two threads does 20. They begin alike and step along the mean of their gradients, so they stay so.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from segment_anything.modeling import Sam
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from medsaga_lib.pretraining.losses import pretraining_loss


@contextmanager
def joined(device: str) -> Iterator[None]:
    """Joins the processes that torchrun started, each with a GPU of its own; alone, nothing."""
    if not dist.is_torchelastic_launched():
        yield
        return
    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group()
    try:
        yield
    finally:
        dist.destroy_process_group()


def share() -> tuple[int, int]:
    """This process's number and how many there are; (0, 1) alone."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def objective(sam: Sam, corrections: int) -> nn.Module:
    """`pretraining_loss` of batches; its backward pass averages the gradients of all processes."""
    loss = _Objective(sam)
    if not dist.is_initialized():
        return loss
    masks_unused = corrections == 0  # no click, so no mask is shown with it
    return DistributedDataParallel(loss, find_unused_parameters=masks_unused)


class _Objective(nn.Module):
    def __init__(self, sam: Sam):
        super().__init__()
        self.sam = sam

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return pretraining_loss(self.sam, batch)


def any_of_all(value: bool, device: str) -> bool:
    """Whether it is true in one of the processes."""
    if share() == (0, 1):
        return value
    found: Tensor = torch.tensor(float(value), device=device)
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return bool(found)
