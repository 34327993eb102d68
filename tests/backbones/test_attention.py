"""The fused attention computes segment_anything's, without keeping the map."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from medsaga_lib.backbones.attention import FusedAttention, _Attend, attend
from medsaga_lib.backbones.sam import build_sam
from medsaga_lib.memory import fake, saved_bytes


def pair(width, heads, grid, dtype=torch.float32):
    """The original, and the fused one with the same weights."""
    from segment_anything.modeling.image_encoder import Attention  # after medsaga_lib's imports

    original = Attention(width, heads, use_rel_pos=True, input_size=grid).to(dtype)
    for positions in (original.rel_pos_h, original.rel_pos_w):
        torch.nn.init.normal_(positions)  # segment_anything starts them at zero
    fused = copy.deepcopy(original)
    fused.__class__ = FusedAttention
    return original, fused


def answers(module, x, gradient):
    """The output, and the gradients with respect to the input and every parameter."""
    x = x.clone().requires_grad_()
    y = module(x)
    y.backward(gradient)
    return {"output": y, "input": x.grad} | {n: p.grad for n, p in module.named_parameters()}


@settings(max_examples=15, deadline=None)
@given(
    batch=st.integers(1, 3),
    height=st.integers(1, 6),
    width=st.integers(1, 6),
    heads=st.integers(1, 3),
    channels=st.integers(1, 9),
)
def test_equals_segment_anythings_for_any_shape(batch, height, width, heads, channels):
    torch.manual_seed(0)
    pair_ = pair(heads * channels, heads, (height, width), torch.float64)
    x, gradient = torch.randn(2, batch, height, width, heads * channels, dtype=torch.float64)
    theirs, ours = (answers(module, x, gradient) for module in pair_)
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-9, atol=1e-9, msg=name)


@pytest.mark.parametrize(("width", "heads", "side"), [(192, 6, 16), (768, 12, 14), (768, 12, 32)])
def test_equals_segment_anythings_in_single_precision(width, heads, side):
    torch.manual_seed(0)
    x, gradient = torch.randn(2, 2, side, side, width)
    theirs, ours = (answers(m, x, gradient) for m in pair(width, heads, (side, side)))
    for name, value in theirs.items():
        assert (ours[name] - value).abs().max() <= 1e-5 * max(1, value.abs().max()), name


def test_other_devices_way_of_going_back_gives_the_same_gradients(monkeypatch):
    """Without the CPU's kernels the forward pass is made once more through the public function."""
    torch.manual_seed(0)
    _, fused = pair(24, 2, (4, 5))
    x, gradient = torch.randn(2, 3, 4, 5, 24)
    expected = answers(fused, x, gradient)

    def forward_elsewhere(ctx, q, k, v, rows, columns, scale):
        out = attend(q, k, v, rows, columns, scale)
        ctx.scale = scale
        ctx.save_for_backward(q, k, v, rows, columns, out, None)
        return out

    monkeypatch.setattr(_Attend, "forward", staticmethod(forward_elsewhere))
    for name, value in answers(fused, x, gradient).items():
        torch.testing.assert_close(value, expected[name], msg=name)


class Shapes(TorchDispatchMode):
    """Notes the shape of everything that is computed."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        self.seen |= {t.shape for t in tree_leaves(out) if isinstance(t, torch.Tensor)}
        return out

    def __enter__(self):
        self.seen = set()
        return super().__enter__()


def test_no_map_is_ever_made():
    """Neither forward nor backward holds anything with N x N entries: the flash kernels ran."""
    torch.manual_seed(0)
    original, fused = pair(48, 2, (9, 9))
    x, gradient = torch.randn(2, 1, 9, 9, 48)

    def makes_a_map(module):
        with Shapes() as shapes:
            answers(module, x, gradient)
        return any(len(s) >= 2 and s[-2:] == (81, 81) for s in shapes.seen)

    assert makes_a_map(original)
    assert not makes_a_map(fused)


def test_keeps_qkv_and_what_the_next_layer_keeps_anyway():
    _, fused = pair(48, 2, (8, 8))
    x = torch.randn(3, 8, 8, 48, requires_grad=True)
    tokens = 3 * 8 * 8
    with saved_bytes(fused) as saved:
        y = fused(x)
        kept = saved.total()
    assert y.shape == x.shape
    relative = 2 * 8 * 8 * 24  # the two tables, (H, H, c) and (W, W, c)
    per_token = 48 + 3 * 48 + 48 + 2  # input, qkv, output, a logarithm for each head
    assert kept == 4 * (tokens * per_token + relative) + 8 * 2 * 8 * 8  # and the tables' indices


def test_a_whole_encoder_keeps_less_and_computes_the_same():
    torch.manual_seed(0)
    encoders = [build_sam("pocket", 64, attention=a).image_encoder for a in ("original", "fused")]
    encoders[1].load_state_dict(encoders[0].state_dict())
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(*(e(x) for e in encoders), rtol=1e-4, atol=1e-5)
    assert sum(isinstance(m, FusedAttention) for m in encoders[1].modules()) == 6
    assert not any(isinstance(m, FusedAttention) for m in encoders[0].modules())


def test_vit_b_at_1024_keeps_a_sixth_of_what_the_maps_took():
    totals = []
    for attention in ("original", "fused"):
        with torch.device("meta"):
            block = build_sam("vit_b", attention=attention).image_encoder.blocks[2]
        with fake():
            for module in block.modules():
                for name, p in list(module.named_parameters(recurse=False)):
                    setattr(module, name, torch.nn.Parameter(torch.empty(p.shape)))
            x = torch.zeros(1, 64, 64, 768, requires_grad=True)
            with saved_bytes(block.attn) as saved:
                y = block.attn(x)
                totals.append(saved.total())
                del y
    assert totals[0] > 12 * 4096**2 * 4, "a map for each of 12 heads"
    assert totals[1] < 12 * 4096**2 * 4 / 10


def test_mixed_precision():
    torch.manual_seed(0)
    original, fused = pair(48, 2, (8, 8))
    x, gradient = torch.randn(2, 2, 8, 8, 48)
    exact = answers(original, x, gradient)
    with torch.autocast("cpu", torch.bfloat16):
        rough = original(x)
        ours = fused(x)
    assert ours.dtype == rough.dtype == torch.bfloat16
    error, theirs = ((y - exact["output"]).abs().max() for y in (ours, rough))
    assert error < 2 * theirs
    ours.float().backward(gradient)
    ratio = fused.qkv.weight.grad / exact["qkv.weight"]
    assert ratio.median() == pytest.approx(1, abs=0.02)
