"""TinyViT's layers where nothing is differentiated: the same functions in less time and memory.

A convolution includes the batch normalisation behind it (`folded`). Hidden layers, which are up to
4 times as wide as their input, are computed for a few rows or tokens at a time (`by_rows`,
`in_pieces`), so that they stay in the processor's cache. There is no approximation: the results
differ by rounding alone. The weights are folded in each call, so that there is no copy of them
that has to be kept up to date; this takes less than 1 % of the time.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

# Numbers of a hidden layer that are computed at a time on a CPU; our choice by measurement
AT_ONCE = 2**19


def is_evaluated(module: nn.Module, x: Tensor) -> bool:
    """Return whether no backward pass goes through a module with the input x."""
    if not torch.is_grad_enabled():
        return True
    return not (x.requires_grad or any(p.requires_grad for p in module.parameters()))


def folded(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Return weight and bias of a convolution that includes the normalisation behind it."""
    mean, variance = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
    scale = norm.weight * torch.rsqrt(variance + norm.eps)
    bias = norm.bias - mean * scale
    return convolution.weight * scale[:, None, None, None], bias


def depthwise(x: Tensor, weight: Tensor, bias: Tensor, stride: int, pad: tuple[int, int]) -> Tensor:
    """Apply a depthwise convolution to tokens (B, H, W, C); `pad` is for rows and columns."""
    channels_last = x.permute(0, 3, 1, 2)
    out = functional.conv2d(channels_last, weight, bias, stride, pad, groups=len(weight))
    return out.permute(0, 2, 3, 1)


def in_pieces(function: Callable[[Tensor], Tensor], tokens: Tensor, hidden: int) -> Tensor:
    """Return function(tokens), computed for some of the tokens (n, C) at a time.

    Args:
        function: maps each token by itself.
        tokens: (n, C).
        hidden: numbers in the widest layer for a token.
    """
    return torch.cat([function(tokens[part]) for part in pieces(tokens, hidden)])


def pieces(tokens: Tensor, hidden: int) -> list[slice]:
    """Return slices of tokens (n, C) whose hidden numbers are computed at a time."""
    step = _at_once(tokens, hidden)
    return [slice(first, first + step) for first in range(0, len(tokens), step)]


def by_rows(
    widen: Callable[[Tensor], Tensor],
    convolve: Callable[[Tensor], Tensor],
    narrow: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    hidden: int,
    stride: int,
) -> Tensor:
    """Return the output of three layers for images (B, H, W, C), computed for some rows at a time.

    Args:
        widen: maps tokens (1, h, W, C) to (1, h, W, hidden), each by itself.
        convolve: a convolution 3 x 3 that pads the columns, but not the rows.
        narrow: maps its output and the tokens of x below the middle of its kernel to tokens
            (1, h', W', C'), each by itself.
        x: the images.
        hidden: channels of the hidden layer.
        stride: of the convolution.
    """
    width = x.shape[2]
    outside = x.new_zeros(1, 1, width, hidden)  # the padding above and below an image
    at_once = stride * max(2 // stride, _at_once(x, width * hidden) // stride)
    images = []
    for image in x.split(1):
        pieces, above, first, parts = image.split(at_once, 1), outside, 0, []
        for number, piece in enumerate(pieces, start=1):
            below = [outside] if number == len(pieces) else []
            rows = torch.cat([above, widen(piece), *below], 1)
            middle = convolve(rows)
            end = first + stride * middle.shape[1]
            parts.append(narrow(middle, image[:, first:end]))
            # The rows that the next kernels need too are not computed again
            above, first = rows[:, end - first :], end
        images.append(torch.cat(parts, 1))
    return torch.cat(images) if len(images) > 1 else images[0]


def _at_once(x: Tensor, numbers: int) -> int:
    """Return how many pieces with this many hidden numbers are computed at a time."""
    whole = x.device.type != "cpu" or torch.jit.is_tracing()  # an export has one size
    return x.numel() if whole else max(1, AT_ONCE // numbers)
