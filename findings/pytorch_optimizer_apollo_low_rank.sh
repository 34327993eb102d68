#!/usr/bin/env bash
# pytorch-optimizer 4.1.0 (torch 2.13.0): APOLLO, to fine-tune a SAM with few optimizer states
#
# Good guess: APOLLO steps along the whole gradient; its random subspace gives only the length of the step
#             (arXiv 2412.05270, algorithm 1), and `scale` multiplies the step by its square root.
# Behaviour:  the step is the projected gradient, mapped back. It has at most `rank` directions, so between
#             two refreshes the weights cannot leave a random subspace. The scale acts twice, as its power
#             1.5. There is no warning, the loss falls, and the states are as small as they should be.
# Matters:    a comparison of APOLLO with GaLore or LoRA compares a random-subspace method instead, and a
#             run shorter than `update_proj_gap` trains `rank` random directions of each matrix.
# Seen (2026-12-01): gradient of rank 64, step of rank 4, cosine .23; a least-squares fit of one matrix
#             keeps .97 of its error after 2000 steps (steps along the whole gradient: 0.00); scale .25
#             shortens the first step to .125 instead of .5.
# Where:      pytorch_optimizer/optimizer/apollo.py, APOLLO.step: `torch.mul(grad, scaling_factor, ...)`
#             with the projected `grad`, then `project_back`; the authors' code takes `p.grad`, see
#             https://github.com/huggingface/transformers/pull/36062 ("for full-rank raw gradient")
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -qq --disable-pip-version-check \
  numpy==2.4.6 torch==2.13.0 pytorch-optimizer==4.1.0
cd "$dir"
venv/bin/python -W ignore - <<'PY'
import sys
import torch
from pytorch_optimizer import APOLLO

RANK = 4
torch.manual_seed(0)
truth, gradient = torch.randn(64, 256), torch.randn(64, 256)

def trained(steps, of, rate=1e-2, scale=1.0):
    torch.manual_seed(0)  # the same subspace
    W = torch.nn.Parameter(torch.zeros(64, 256))
    group = {"params": [W], "rank": RANK, "update_proj_gap": 10**6, "scale": scale, "projection_type": "std"}
    optimizer = APOLLO([group], lr=rate, scale_type="channel")
    for _ in range(steps):
        W.grad = of(W.detach())
        optimizer.step()
    return W.detach()

one = trained(1, lambda W: gradient.clone())
rank = torch.linalg.matrix_rank(one).item()
cosine = torch.nn.functional.cosine_similarity(-one.flatten(), gradient.flatten(), dim=0).item()
left = ((trained(2000, lambda W: W - truth) - truth).norm() / truth.norm()).item()
shorter = (trained(1, lambda W: gradient.clone(), scale=0.25).norm() / one.norm()).item()
whole = torch.zeros(64, 256)
for _ in range(2000):
    whole -= 1e-2 * (whole - truth)
print(f"gradient of rank {torch.linalg.matrix_rank(gradient)}, step of rank {rank}, cosine {cosine:.2f}")
print(f"error after 2000 steps: {left:.2f}; along the whole gradient {(whole - truth).norm() / truth.norm():.2f}")
print(f"scale .25 shortens the first step to {shorter:.3f}")
if rank != RANK or left < 0.9:
    sys.exit("The steps of APOLLO no longer stay in a subspace of its rank.")
if abs(shorter - 0.25**1.5) > 1e-3:
    sys.exit("The scale of APOLLO no longer acts as its power 1.5.")
PY
