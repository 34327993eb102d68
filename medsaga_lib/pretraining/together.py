"""Several processes that train one network, each on its share of a step's pictures.

    torchrun --nproc-per-node 2 -m -- medsaga_lib.pretraining --out RUN

On two CPU cores two processes of one thread each draw and train 26 pictures a second where one of
two threads does 20. They begin alike and step along the mean of their gradients, so they stay so.
"""

import os

import torch
import torch.distributed as dist
from torch import Tensor, nn


def join(device: str) -> None:
    """Joins the processes that torchrun started; alone it does nothing."""
    if "WORLD_SIZE" in os.environ:
        dist.init_process_group("gloo" if device == "cpu" else "nccl")


def share() -> tuple[int, int]:
    """This process's number and how many there are; (0, 1) alone."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


@torch.no_grad()
def average_gradients(module: nn.Module) -> None:
    """Gives every process the mean of all processes' gradients; a missing one counts as zeros."""
    _, processes = share()
    if processes == 1:
        return
    parameters = [p for p in module.parameters() if p.requires_grad]
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    parts = (flat / processes).split([p.numel() for p in parameters])
    for parameter, part in zip(parameters, parts, strict=True):
        parameter.grad = part.view_as(parameter)


def any_of_all(value: bool, device: str) -> bool:
    """Whether it is true in one of the processes."""
    if share() == (0, 1):
        return value
    found: Tensor = torch.tensor(float(value), device=device)
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return bool(found)
