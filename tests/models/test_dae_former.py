"""DAE-Former: every block and the whole network compute what the published code computes."""

import math
import re

import oracle
import pytest
import torch
from torch import nn
from torch.nn.functional import layer_norm, linear

from medsaga_lib.memory.ledger import fake, saved_bytes
from medsaga_lib.models.dae_former import (
    BLOCKS,
    ChannelAttention,
    DAEFormer,
    DecoderStage,
    DualBlock,
    EfficientAttention,
    MixFFN,
    PatchExpanding,
    SkipCrossAttention,
    channel_attention,
    efficient_attention,
)


def within(published: str, ours: str, names: dict[str, str]) -> dict[str, str]:
    return {f"{published}.{k}": f"{ours}.{v}" for k, v in names.items()}


# The published code's name of every layer that is used -> ours
EFFICIENT = {"keys": "keys", "queries": "queries", "values": "values", "reprojection": "project"}
CHANNEL = {"temperature": "temperature", "qkv": "qkv", "proj": "project"}
FFN = {"fc1": "widen", "dwconv.dwconv": "mix", "norm1": "norm", "fc2": "narrow"}
EXPAND = {"expand": "expand", "norm": "norm"}
DUAL = {
    **{f"norm{n + 1}": f"norms.{n}" for n in range(4)},
    **within("attn", "parts.0", EFFICIENT),
    **within("mlp1", "parts.1", FFN),
    **within("channel_attn", "parts.2", CHANNEL),
    **within("mlp2", "parts.3", FFN),
}
SKIP = {
    "norm1": "norm_inputs",
    "attn.reprojection": "project",
    "attn.norm": "norm_attended",
    "norm2": "norm",
    **within("mlp", "ffn", FFN),
}
DECODER = {
    "x1_linear": "enter",
    **within("cross_attn", "skip", SKIP),
    "concat_linear": "merge",
    **within("layer_former_1", "blocks.0", DUAL),
    **within("layer_former_2", "blocks.1", DUAL),
    **within("layer_up", "expand", EXPAND),
}
WHOLE = {
    **within("decoder_2.layer_up", "expand", EXPAND),
    **within("decoder_1", "decoder.0", DECODER),
    **within("decoder_0", "decoder.1", DECODER),
    "decoder_0.last_layer": "classify",
}
for n in range(3):
    WHOLE |= {
        f"backbone.patch_embed{n + 1}.proj": f"encoder.{n}.0.embed",
        f"backbone.patch_embed{n + 1}.norm": f"encoder.{n}.0.norm",
        f"backbone.norm{n + 1}": f"encoder.{n}.{1 + BLOCKS}",
    }
    for block in range(BLOCKS):
        WHOLE |= within(f"backbone.block{n + 1}.{block}", f"encoder.{n}.{1 + block}", DUAL)


def load(module: nn.Module, shapes: dict, names: dict[str, str], prefix="", mode="fan_in") -> set:
    """Fill all our tensors, 1 x 1 kernels as matrices; returns the published names left over."""
    state, left = {}, set(shapes)
    theirs = {ours: published for published, ours in names.items()}
    for ours, tensor in module.state_dict().items():
        layer, _, leaf = ours.rpartition(".")
        key = prefix + (theirs[ours] if ours in theirs else f"{theirs[layer]}.{leaf}")
        assert [n for n in shapes[key] if n > 1] == [n for n in tensor.shape if n > 1]
        filled = torch.from_numpy(oracle.fill.fill(key, shapes[key], mode))
        state[ours] = filled.reshape(tensor.shape)
        left.remove(key)
    module.load_state_dict(state)
    return left


def inputs_of(case: dict, rows: int) -> list[torch.Tensor]:
    """The case's token sequences as maps (B, H, W, C)."""
    tokens = [oracle.tensor(described).flatten(1, -2) for described in case["inputs"]]
    return [x.unflatten(1, (rows, -1)) for x in tokens]


CASES = oracle.read("daeformer_blocks")["cases"]
BUILT = {  # block, its names, rows of its map
    "channel_attention": (lambda: ChannelAttention(16), CHANNEL, 4),
    "mix_ffn_skip": (lambda: MixFFN(8, 32), FFN, 4),
    "dual_transformer_block": (lambda: DualBlock(16), DUAL, 4),
    "skip_cross_attention_block": (lambda: SkipCrossAttention(8), SKIP, 4),
    "patch_expand": (lambda: PatchExpanding(8, 4, 2), EXPAND, 3),
    "final_patch_expand_x4": (lambda: PatchExpanding(4, 4, 4), EXPAND, 2),
    "decoder_layer_with_skip": (
        lambda: DecoderStage(8, 16, PatchExpanding(16, 8, 2)),
        DECODER,
        4,
    ),
}


@torch.no_grad()
@pytest.mark.parametrize("name", BUILT)
def test_block_equals_the_oracle(name):
    case, (build, names, rows) = CASES[name], BUILT[name]
    module = build()
    for key in load(module, case["state_dict"], names, f"{name}."):
        assert re.search(r"(^mix_ffn_skip|mlp.?)\.norm[23]\.", key)  # never used
    oracle.assert_close(case["output"], module(*inputs_of(case, rows)).flatten(1, 2))


@torch.no_grad()
def test_efficient_attention_equals_the_oracle():
    name = "efficient_attention_1head"
    module = EfficientAttention(8)
    assert not load(module, CASES[name]["state_dict"], EFFICIENT, f"{name}.")
    x = oracle.tensor(CASES[name]["inputs"][0])  # (B, C, H, W)
    oracle.assert_close(CASES[name]["output"], module(x.movedim(1, -1)).movedim(-1, 1))


def layer_of(name):
    """The weights of a case, and a function that applies one of its linear layers."""
    state = {
        key.removeprefix(f"{name}."): torch.from_numpy(oracle.fill.fill(key, shape, "fan_in"))
        for key, shape in CASES[name]["state_dict"].items()
    }

    def apply(layer, x):
        return linear(x, state[f"{layer}.weight"].flatten(1), state.get(f"{layer}.bias"))

    return state, apply


def split(x, heads):
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)  # (B, heads, N, d)


def join(x):
    return x.transpose(1, 2).flatten(2)


def test_heads_are_one_more_dimension_of_efficient_attention():
    name = "efficient_attention_2heads"
    _, layer = layer_of(name)
    x = oracle.tensor(CASES[name]["inputs"][0]).flatten(2).mT  # (B, N, C)
    parts = (split(layer(key, x), 2) for key in ("queries", "keys", "values"))
    out = layer("reprojection", join(efficient_attention(*parts)))
    oracle.assert_close(CASES[name]["output"], out.mT.unflatten(-1, (4, 5)))


def test_heads_are_one_more_dimension_of_channel_attention():
    name = "channel_attention_2heads_bias"
    state, layer = layer_of(name)
    qkv = layer("qkv", oracle.tensor(CASES[name]["inputs"][0])).chunk(3, -1)
    out = channel_attention(*(split(x, 2) for x in qkv), state["temperature"])
    oracle.assert_close(CASES[name]["output"], layer("proj", join(out)))


@pytest.mark.parametrize(("name", "heads"), [("cross_attention", 1), ("cross_attention_2heads", 2)])
def test_skip_gives_queries_and_keys_the_decoder_the_values(name, heads):
    state, layer = layer_of(name)
    x, skip = (split(oracle.tensor(described), heads) for described in CASES[name]["inputs"])
    out = layer("reprojection", join(efficient_attention(skip, skip, x)))
    out = layer_norm(out, out.shape[-1:], state["norm.weight"], state["norm.bias"])
    oracle.assert_close(CASES[name]["output"], out)


@torch.no_grad()
@pytest.mark.parametrize("mode", ["fan_in", "std02"])
def test_whole_network_equals_the_oracle(mode):
    stored = oracle.read("daeformer_224")
    model = DAEFormer(9).eval()
    left = load(model, stored["state_dict"], WHOLE, mode=mode)
    assert left == set(stored["parameters"]["never_used"])
    oracle.assert_close(stored[mode]["output"], model(oracle.tensor(stored[mode]["input"])))


def test_what_is_left_out_is_38_percent_of_the_published_weights():
    stored = oracle.read("daeformer_224")
    with torch.device("meta"):
        ours = sum(p.numel() for p in DAEFormer(9).parameters())
    dead = sum(math.prod(stored["state_dict"][k]) for k in stored["parameters"]["never_used"])
    assert (ours, dead, ours + dead) == (29_690_201, 18_382_864, 48_073_065)


def test_attention_is_linear_and_still_an_attention():
    """Equal to the N x N map that is never made; each of its rows adds up to 1."""
    q, k, v = torch.randn(3, 2, 50, 8, dtype=torch.float64)
    attention = q.softmax(-1) @ k.softmax(-2).mT  # (2, 50, 50)
    assert torch.allclose(efficient_attention(q, k, v), attention @ v, atol=1e-12)
    assert torch.allclose(attention.sum(-1), torch.ones(2, 50, dtype=torch.float64))


def test_memory_grows_as_the_number_of_pixels():
    held = []
    with fake():
        block = DualBlock(16)
        for side in (8, 16, 32):
            with saved_bytes(block) as saved:
                result = block(torch.zeros(1, side, side, 16, requires_grad=True))
                held.append(saved.total())
                del result
    small, middle, large = held
    assert large - middle == 4 * (middle - small)  # with an N x N map it would be 16


def test_bias_of_the_keys_is_inert():
    torch.manual_seed(0)
    block = EfficientAttention(8).double()
    x = torch.randn(2, 4, 5, 8, dtype=torch.float64)
    before = block(x)
    before.square().sum().backward()
    assert block.keys.bias.grad.abs().max() < 1e-12 < 1e-3 < block.queries.bias.grad.abs().max()
    with torch.no_grad():
        block.keys.bias.normal_()
        assert torch.allclose(block(x), before, atol=1e-12)


def test_every_tensor_gets_a_gradient():
    torch.manual_seed(0)
    model = DAEFormer(2)
    model(torch.rand(1, 3, 32, 32)).square().sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_logits_have_the_size_of_the_picture():
    with torch.device("meta"):
        model = DAEFormer(3)
        for size in (16, 48, 224):
            assert model(torch.zeros(2, 3, size, size)).shape == (2, 3, size, size)
