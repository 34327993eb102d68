#!/usr/bin/env bash
# torch 2.13.0: FlopCounterMode on a CPU, attention and a layer of nn.TransformerEncoder
#
# Good guess: FlopCounterMode counts scaled_dot_product_attention, as it does on a GPU; the kernel that is
#             chosen does not change the number.
# Behaviour:  On a CPU the call is one fused operator that the counter does not know, and it counts 0. With
#             the backend MATH it counts what the formula says. nn.TransformerEncoderLayer in eval mode
#             without gradients takes another fused operator: the whole layer, with its linear layers,
#             counts 0. There is no warning.
# Matters:    A table of GFLOPs of a ViT made on a laptop leaves out the attention, or everything, and it
#             differs from the table of the same network made on a GPU or in training mode.
# Seen (2026-11-30): 4 heads, 64 tokens, 32 channels: fused 0, MATH and two products by hand 2,097,152 =
#             2 x 2 x 4 x 64 x 64 x 32. A layer of width 128: 0 in eval mode, 27,262,976 in training mode.
# Where:      torch/utils/flop_counter.py (flop_registry); aten::_scaled_dot_product_flash_attention_for_cpu
#             and aten::_transformer_encoder_layer_fwd are not in it
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -qq --disable-pip-version-check torch==2.13.0 numpy==2.4.6
cd "$dir"
venv/bin/python -W ignore - <<'PY'
import sys

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.flop_counter import FlopCounterMode

HEADS, TOKENS, CHANNELS = 4, 64, 32
q, k, v = torch.randn(3, 1, HEADS, TOKENS, CHANNELS)


def flops(run):
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


fused = flops(lambda: scaled_dot_product_attention(q, k, v))
with sdpa_kernel(SDPBackend.MATH):
    plain = flops(lambda: scaled_dot_product_attention(q, k, v))
by_hand = flops(lambda: torch.softmax(q @ k.mT / CHANNELS**0.5, -1) @ v)
layer = torch.nn.TransformerEncoderLayer(128, 4, 512, batch_first=True)
x = torch.randn(1, TOKENS, 128)
training = flops(lambda: layer(x))
layer.eval()
with torch.no_grad():
    evaluation = flops(lambda: layer(x))
print(f"torch {torch.__version__}: fused {fused:,}, MATH {plain:,}, by hand {by_hand:,}")
print(f"a layer: training mode {training:,}, eval mode {evaluation:,}")
expected = 2 * 2 * HEADS * TOKENS * TOKENS * CHANNELS
if not (fused == evaluation == 0 and plain == by_hand == expected and training > 0):
    sys.exit("the counter behaves differently now")
PY
