#!/usr/bin/env bash
# segmentation-models-pytorch 0.6.0 (torch 2.13.0): Dice, Jaccard and Tversky loss without foreground
#
# Good guess: a batch without the organ, predicted as organ everywhere, has a loss near 1.
# Behaviour:  the loss of a class that is absent from the whole batch is multiplied by 0: loss 0 and
#             gradient 0, the best value there is. One foreground pixel in the batch brings it to .996.
#             The documentation's list of arguments does not say so; the source has a comment.
# Matters:    with small batches and rare lesions most batches lack the class. False positives in them are
#             free, and a validation loss of 0 on healthy patients means nothing.
# Seen (2026-11-29): everything predicted, nothing there: 0.000, gradient 0 (all three);
#             with one true pixel of 512: .996 (Dice), .998 (Jaccard), .996 (Tversky).
# Where:      segmentation_models_pytorch/losses/dice.py, DiceLoss.forward (`loss *= mask`)
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -qq --disable-pip-version-check \
  numpy==2.4.6 torch==2.13.0 torchvision==0.28.0 timm==1.0.31 segmentation-models-pytorch==0.6.0
cd "$dir"
venv/bin/python -W ignore - <<'PY'
import sys
import torch
try:
    import torchvision
except RuntimeError:  # a CPU build of torch beside a CUDA build of torchvision: two operators are missing
    for name in ("nms", "qnms"):
        torch.library.define(f"torchvision::{name}", "(Tensor a, Tensor b, float c) -> Tensor")
from segmentation_models_pytorch import losses

def measure(loss, truth):
    logits = torch.full((2, 1, 16, 16), 4.0, requires_grad=True)  # probability .98 everywhere
    value = loss(logits, truth)
    value.backward()
    return value.item(), logits.grad.abs().sum().item()

healthy = torch.zeros(2, 1, 16, 16)
lesion = healthy.clone()
lesion[0, 0, 8, 8] = 1
for kind in (losses.DiceLoss, losses.JaccardLoss, losses.TverskyLoss):
    for mode in ("binary", "multilabel"):
        (free, gradient), (charged, pull) = measure(kind(mode), healthy), measure(kind(mode), lesion)
        print(f"{kind.__name__:11} {mode:10} nothing there: loss {free:.3f}, gradient {gradient:.1e};"
              f" one pixel: loss {charged:.3f}, gradient {pull:.1e}")
        if free != 0 or gradient != 0:
            sys.exit("False positives in a batch without the class are no longer free.")
        if charged < 0.99 or pull == 0:
            sys.exit("One foreground pixel no longer brings the loss back.")
PY
