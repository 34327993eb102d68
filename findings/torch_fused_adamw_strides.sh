#!/usr/bin/env bash
# torch 2.13.0: AdamW(fused=True) on a CPU, a run that is resumed in channels_last
#
# Good guess: fused=True changes the speed and the last bits. A run whose layers are put into channels_last
#             goes on as it would in the usual layout, or there is an error, as on a GPU.
# Behaviour:  on a CPU, the fused kernel walks through the memory of weight, gradient and moments side by
#             side and does not look at their strides. load_state_dict keeps the moments in their old order,
#             so each weight is updated with the moments of another. No warning, no error; the loss goes on.
# Matters:    channels_last and fused=True are both advised for speed, for U-Nets and SAM's convolutions.
#             fused=True passes over the memory once, so it is several times faster than the other ways.
# Seen (2026-12-03): the first step after resuming, largest difference of a weight between the 2 layouts,
#             the learning rate being 0.01: 0 with fused=False, 0.0119 with fused=True.
# Where:      aten/src/ATen/native/cpu/FusedAdamKernel.cpp (data_ptr of each tensor); for a GPU,
#             ForeachUtils.h compares the strides: pytorch/pytorch issues 106951 and 110758
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -qq --disable-pip-version-check numpy==2.4.6 torch==2.13.0
cd "$dir"
venv/bin/python -W ignore - <<'PY'
import copy
import sys
import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
images, targets = torch.randn(4, 8, 12, 12), torch.randn(4, 8, 12, 12)
start = nn.Conv2d(8, 8, 3, padding=1)


def train(net, optimizer, steps):
    for _ in range(steps):
        optimizer.zero_grad()
        (net(images) - targets).square().mean().backward()
        optimizer.step()


def apart(fused):
    """Largest difference of a weight between both layouts, one step after resuming."""
    net = copy.deepcopy(start)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01, fused=fused)
    train(net, optimizer, 20)
    weights = []
    for layout in (torch.contiguous_format, torch.channels_last):
        again = copy.deepcopy(net).to(memory_format=layout)
        resumed = torch.optim.AdamW(again.parameters(), lr=0.01, fused=fused)
        resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        train(again, resumed, 1)
        weights.append(again.weight.detach())
    return (weights[0] - weights[1]).abs().max().item()


plain, fused = apart(False), apart(True)
print(f"first step after resuming, channels_last less the usual layout: fused=False {plain:.4f}, "
      f"fused=True {fused:.4f}")
if plain > 1e-5:
    sys.exit("The layouts differ without fused=True, too.")
if fused < 0.005:
    sys.exit("AdamW(fused=True) no longer mixes up the moments of another layout.")
PY
