#!/usr/bin/env bash
# timm 1.0.31 (torch 2.13.0): several checkpoints evaluated in one TinyViT
#
# Good guess: load_state_dict replaces all weights, so each checkpoint gets its own predictions.
# Behaviour:  in eval mode the first forward pass keeps a gathered copy of the attention biases. A later
#             load_state_dict reports that all keys match, but the copy stays in use until train() or
#             eval() is called again. Weights that are averaged in place meet the same copy.
# Matters:    TinyViT is MobileSAM's and LiteMedSAM's encoder. A loop over folds, epochs or averaged
#             weights with eval() before the loop scores a mixture: all weights of the new checkpoint
#             with the biases of the first one.
# Seen (2026-11-29): masks of checkpoint B, loaded after A, against B in a fresh network: Dice .871;
#             after one more eval(): 1.000. (Random weights stand in for two trained checkpoints.)
# Where:      timm/models/tiny_vit.py, Attention.get_attention_biases; LeViT and EfficientFormer, see
#             https://github.com/huggingface/pytorch-image-models/pull/2795 (eval() clears in 1.0.31)
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -qq --disable-pip-version-check \
  numpy==2.4.6 torch==2.13.0 torchvision==0.28.0 timm==1.0.31
cd "$dir"
venv/bin/python -W ignore - <<'PY'
import sys
import torch
try:
    import torchvision
except RuntimeError:  # a CPU build of torch beside a CUDA build of torchvision: two operators are missing
    for name in ("nms", "qnms"):
        torch.library.define(f"torchvision::{name}", "(Tensor a, Tensor b, float c) -> Tensor")
import timm

torch.set_num_threads(1)
torch.manual_seed(0)

def network():
    model = timm.create_model("tiny_vit_5m_224", num_classes=0)
    for name, p in model.named_parameters():
        if name.endswith("attention_biases"):  # zero in a new network
            torch.nn.init.normal_(p, std=1)
        elif p.ndim == 2:  # new networks have weights so small that attention hardly acts
            torch.nn.init.normal_(p, std=p.shape[1] ** -0.5)
    return model.eval()

pictures, head = torch.randn(4, 3, 224, 224), torch.randn(320)

@torch.no_grad()
def masks(model):  # a linear head on the features, without its mean, cut at 0
    x = torch.einsum("nchw,c->nhw", model.forward_features(pictures), head)
    x = torch.nn.functional.interpolate((x - x.mean())[:, None], size=(224, 224), mode="bilinear")
    return x > 0

def dice(a, b):
    return (2 * (a & b).sum() / (a.sum() + b.sum())).item()

a, b = network(), network()
truth = masks(b)
masks(a)  # the first checkpoint is evaluated ...
print("loading checkpoint B:", a.load_state_dict(b.state_dict()))  # ... and the second is loaded
stale = dice(masks(a), truth)
a.eval()
cleared = dice(masks(a), truth)
print(f"Dice with B in a fresh network: loaded after A {stale:.3f}, after one more eval() {cleared:.3f}")
if stale > 0.95:
    sys.exit("load_state_dict in eval mode no longer leaves the old attention biases in use.")
if cleared < 1:
    sys.exit("Another eval() no longer clears the old attention biases.")
PY
