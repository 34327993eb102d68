#!/usr/bin/env bash
# torch 2.13.0 and onnx 1.23.2: movedim(-1, 1) in torch.onnx.export with dynamo=False
#
# Good guess: tokens.movedim(-1, 1), the usual step from tokens (B, H, W, C) to an image (B, C, H, W) in
#             TinyViT and Swin encoders, becomes a Transpose with perm 0, 3, 1, 2.
# Behaviour:  The exporter writes perm 0, -1, 1, 2, without a warning. movedim(1, -1) is right. The full check
#             of onnx refuses the file, and so do ONNX Runtime and onnxruntime-web, when it is loaded.
# Matters:    The encoder of MobileSAM or LiteMedSAM exports, and fails only on the machine that shall run
#             it. permute(0, 3, 1, 2) is exported as it should be.
# Seen (2026-11-30): movedim(-1, 1): [0, -1, 1, 2], refused; permute(0, 3, 1, 2): [0, 3, 1, 2], accepted.
# Where:      torch/onnx/_internal/torchscript_exporter/symbolic_opset9.py (movedim)
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -qq --disable-pip-version-check torch==2.13.0 numpy==2.4.6 onnx==1.23.2
cd "$dir"
venv/bin/python -W ignore - <<'PY'
import io
import sys

import onnx
import torch


class Moves(torch.nn.Module):
    def forward(self, tokens):
        return tokens.movedim(-1, 1)


class Permutes(torch.nn.Module):
    def forward(self, tokens):
        return tokens.permute(0, 3, 1, 2)


def exported(module):
    """Return the axes of the Transpose, and whether the file passes the full check."""
    file, tokens = io.BytesIO(), torch.zeros(1, 2, 3, 4)
    torch.onnx.export(module, (tokens,), file, dynamo=False, opset_version=17)
    model = onnx.load_from_string(file.getvalue())
    (node,) = [node for node in model.graph.node if node.op_type == "Transpose"]
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception:
        return list(node.attribute[0].ints), "refused"
    return list(node.attribute[0].ints), "accepted"


moved, permuted = exported(Moves()), exported(Permutes())
print("movedim(-1, 1):", *moved)
print("permute(0, 3, 1, 2):", *permuted)
if moved != ([0, -1, 1, 2], "refused") or permuted != ([0, 3, 1, 2], "accepted"):
    sys.exit("The exporter no longer writes a negative axis for movedim(-1, 1).")
PY
