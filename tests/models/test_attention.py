"""The fused attention computes what segment_anything's does, without keeping the map."""

import copy
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from medsaga_lib.adapt.lora import LoRA
from medsaga_lib.adapt.svd import SVDAffine
from medsaga_lib.memory.ledger import fake, saved_bytes
from medsaga_lib.models import attention_on_cpu
from medsaga_lib.models.attention import (
    FusedAttention,
    _Attend,
    attend,
    fuse_attention,
    relative_positions,
)
from medsaga_lib.models.sam import build_sam


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


@pytest.mark.parametrize(("height", "width", "window"), [(5, 7, 3), (6, 6, 3), (2, 3, 4)])
def test_a_block_with_windows_does_not_compute_their_filling(height, width, window):
    """segment_anything's own block fills the grid up with zeros before q, k and v."""
    original, fused = blocks(height, width, window)
    x, gradient = torch.randn(2, 2, height, width, 24, dtype=torch.float64)
    theirs, ours = (answers(block, x, gradient) for block in (original, fused))
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-9, atol=1e-9, msg=name)

    seen = []
    fused.attn.proj.register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    fused(x)
    assert seen == [(2, height, width, 24)]


def blocks(height, width, window, dtype=torch.float64):
    """A block of segment_anything's with windows, and the same with its attention fused."""
    from segment_anything.modeling.image_encoder import Block

    torch.manual_seed(0)
    original = Block(24, 2, use_rel_pos=True, window_size=window, input_size=(height, width))
    for parameter in original.parameters():
        torch.nn.init.normal_(parameter, std=0.2)  # the positions and biases start at zero
    fused = copy.deepcopy(original.to(dtype))
    fuse_attention(SimpleNamespace(blocks=[fused]))
    return original, fused


@pytest.mark.parametrize("config", [LoRA(), SVDAffine()])
def test_the_filling_is_right_under_adapters_that_have_learned(config):
    """segment_anything pads windows with zeros, so the adapters must be applied to zeros, too."""
    from segment_anything.modeling import ImageEncoderViT

    shape = {"embed_dim": 24, "depth": 2, "num_heads": 2, "out_chans": 8, "use_rel_pos": True}
    encoder = ImageEncoderViT(img_size=80, window_size=3, global_attn_indexes=(1,), **shape)
    config.attach(encoder)
    torch.manual_seed(0)
    for parameter in encoder.double().parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x = torch.randn(2, 3, 80, 80, dtype=torch.float64)  # 5 x 5 tokens, in four windows
    expected = encoder(x)
    fuse_attention(encoder)
    torch.testing.assert_close(encoder(x), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("side", "length"), [(1, 1), (4, 7), (14, 27), (5, 7), (3, 9)])
def test_relative_positions_are_segment_anythings(side, length):
    from segment_anything.modeling.image_encoder import get_rel_pos

    table = torch.randn(length, 6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(relative_positions(table, side), get_rel_pos(side, side, table))


@pytest.mark.parametrize("window", [0, 3])
def test_other_devices_way_of_going_back_gives_the_same_gradients(monkeypatch, window):
    """Other devices repeat the forward pass with torch's function and differentiate that."""
    _, fused = blocks(4, 5, window, torch.float32)
    x, gradient = torch.randn(2, 3, 4, 5, 24)
    expected = answers(fused, x, gradient)

    def forward_elsewhere(ctx, qkv, filling, rows, columns, layout):
        out = attend(qkv, filling, rows, columns, layout)
        ctx.layout = layout
        ctx.save_for_backward(qkv, filling, rows, columns, out, None)
        return out

    monkeypatch.setattr(_Attend, "forward", staticmethod(forward_elsewhere))
    for name, value in answers(fused, x, gradient).items():
        torch.testing.assert_close(value, expected[name], msg=name)


@pytest.mark.parametrize("piece", [1, 7, 70, 150, 1000, 10**6])
def test_pieces_of_any_size_give_the_same(monkeypatch, piece):
    """A piece may be some queries of a map, one map or several: here 2 x 3 maps of 20 x 20."""
    _, fused = pair(24, 3, (4, 5), torch.float64)
    x, gradient = torch.randn(2, 2, 4, 5, 24, dtype=torch.float64)
    expected = answers(fused, x, gradient)
    monkeypatch.setattr(attention_on_cpu, "PIECE", piece)
    for name, value in answers(fused, x, gradient).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-9, atol=1e-9, msg=name)


class Sizes(TorchDispatchMode):
    """Record the number of elements of the largest tensor that is computed."""

    largest = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        sizes = [t.numel() for t in tree_leaves(out) if isinstance(t, torch.Tensor)]
        self.largest = max([self.largest, *sizes])
        return out


@pytest.mark.parametrize("name", ["attention", "attention_backward"])
def test_no_map_is_ever_made(monkeypatch, name):
    """No tensor is larger than `rows`; a map would be larger by the number of rows of the grid."""
    piece, (batch, heads, side, channels) = 4096, (2, 3, 32, 8)
    monkeypatch.setattr(attention_on_cpu, "PIECE", piece)
    shape = batch, heads, side * side
    q, k, v, out, gradient = torch.randn(5, *shape, channels)
    inputs = q, k, v, *torch.randn(2, *shape, side)
    if name == "attention_backward":
        inputs = gradient, *inputs, out, torch.randn(shape)
    with Sizes() as sizes:
        getattr(attention_on_cpu, name)(*inputs, scale=1.0)
    assert sizes.largest <= batch * heads * side**2 * side  # `rows` and `columns` themselves
    assert batch * heads * side**4 > 30 * sizes.largest


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
    assert kept == 4 * (tokens * per_token + relative)


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
    assert theirs < 2**-5 * exact["output"].abs().max()  # bf16 rounds by 2^-9: sixteen times that
    assert error < 2 * theirs
    ours.float().backward(gradient)
    ratio = fused.qkv.weight.grad / exact["qkv.weight"]
    assert ratio.median() == pytest.approx(1, abs=0.02)
