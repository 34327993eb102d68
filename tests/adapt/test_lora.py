"""LoRA through peft on an un-fused qkv and on MLPs: identity, merge, counts, gradients."""

import pytest
import torch
from torch import nn

from medsaga_lib.adapt.lora import LoRA, SplitQKV
from medsaga_lib.models.heads import decode_masks
from medsaga_lib.models.sam import build_sam
from medsaga_lib.models.tinyvit import Attention


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return build_sam("pocket", 64).image_encoder.eval()


@pytest.fixture
def image():
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def test_splitting_and_fusing_is_exact_both_ways():
    fused = nn.Linear(24, 72)
    split = SplitQKV(fused)
    x = torch.randn(2, 3, 3, 24)
    torch.testing.assert_close(split(x), fused(x), atol=1e-6, rtol=0)
    again = split.fuse()
    assert again.weight.equal(fused.weight)
    assert again.bias.equal(fused.bias)
    assert again(x).equal(fused(x))


def test_tinyvits_thirds_are_not_q_k_and_v():
    """Its rows belong to q, k and v of head 0, then of head 1, and so on; 8 heads of width 2."""
    attention = Attention(width=16, heads=8, window=2)
    split = SplitQKV(attention.qkv, runs=8)
    x = torch.randn(5, 16)
    by_head = attention.qkv(x).view(5, 8, 3, 2)  # as the attention takes it apart
    for number, layer in enumerate((split.q, split.k, split.v)):
        torch.testing.assert_close(layer(x), by_head[:, :, number].flatten(1))
    torch.testing.assert_close(split(x), attention.qkv(x))
    assert split.fuse().weight.equal(attention.qkv.weight)
    assert split.fuse().bias.equal(attention.qkv.bias)

    q, _, v = attention.qkv.weight.chunk(3)  # what a ViT's code would adapt
    hit = {tuple(row.tolist()) for row in torch.cat([q, v])}
    wanted = [tuple(row.tolist()) for row in torch.cat([split.q.weight, split.v.weight])]
    assert sum(row in hit for row in wanted) < 0.7 * len(wanted)  # a third are k's instead


@torch.no_grad()
def test_attached_is_the_identity_before_training(encoder, image):
    before = encoder(image)
    LoRA().attach(encoder)
    torch.testing.assert_close(encoder(image), before, atol=1e-5, rtol=0)


def test_only_a_and_b_train(encoder):
    LoRA(rank=4).attach(encoder)
    names = [n for n, p in encoder.named_parameters() if p.requires_grad]
    assert len(names) == 6 * 2 * 2  # blocks, q and v, A and B
    assert all(".lora_A." in n or ".lora_B." in n for n in names)
    assert not any(".k." in n for n in names)
    count = sum(p.numel() for p in encoder.parameters() if p.requires_grad)
    assert count == 6 * 2 * 2 * 4 * 192


@torch.no_grad()
@pytest.mark.parametrize("alpha", [None, 8])
def test_merged_equals_unmerged_and_the_formula(encoder, image, alpha):
    config = LoRA(rank=3, alpha=alpha, targets=("q", "k", "v"))
    original = encoder.blocks[2].attn.qkv.weight.clone()
    keys = set(encoder.state_dict())
    config.attach(encoder)
    for name, parameter in encoder.named_parameters():
        if "lora_" in name:
            parameter.copy_(torch.randn_like(parameter) * 0.1)
    unmerged = encoder(image)
    scale = 1.0 if alpha is None else alpha / 3
    deltas = []
    for name in "qkv":
        layer = getattr(encoder.blocks[2].attn.qkv, name)
        deltas.append(scale * layer.lora_B.default.weight @ layer.lora_A.default.weight)
    LoRA().merge(encoder)
    torch.testing.assert_close(encoder(image), unmerged, atol=1e-5, rtol=1e-5)
    merged = encoder.blocks[2].attn.qkv.weight
    torch.testing.assert_close(merged, original + torch.cat(deltas), atol=1e-6, rtol=0)
    assert set(encoder.state_dict()) == keys
    assert all(p.dtype == torch.float32 for p in encoder.parameters())


def test_gradients_reach_the_adapters_only(encoder, image):
    LoRA().attach(encoder)
    encoder(image).square().sum().backward()
    for name, parameter in encoder.named_parameters():
        assert (parameter.grad is not None) == ("lora_" in name), name


def test_the_draw_depends_on_the_seed_alone(image):
    drawn = []
    for _ in range(2):
        encoder = build_sam("pocket", 64).image_encoder
        torch.manual_seed(7)
        LoRA().attach(encoder)
        drawn.append(encoder.blocks[0].attn.qkv.q.lora_A.default.weight.clone())
    assert drawn[0].equal(drawn[1])


ALL_OF_LITE = LoRA(rank=4, alpha=1, targets=("q", "v", "lin1", "lin2"))


def randomise_adapters(module):
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.1)


def test_litemedsam_has_the_counts_of_its_lora():
    """As in its code: LoRA, the mask decoder and the prompt encoder train, of 9,895,236 numbers."""
    with torch.device("meta"):
        sam = build_sam("lite_medsam")
        ALL_OF_LITE.attach(sam.image_encoder)
    trains = {n: p.numel() for n, p in sam.named_parameters() if p.requires_grad}
    of_lora = {n: count for n, count in trains.items() if n.startswith("image_encoder.")}
    assert sum(of_lora.values()) == 103_936
    assert all(".lora_A." in n or ".lora_B." in n for n in of_lora)
    assert not any(".proj." in n or ".layers.0." in n for n in of_lora)
    assert len(of_lora) == 10 * 4 * 2  # blocks; q, v, fc1, fc2; A and B
    assert sum(trains.values()) == 4_168_496
    assert sum(p.numel() for p in sam.parameters()) == 9_895_236


@pytest.mark.parametrize("name", ["pocket", "mobile_sam", "lite_medsam"])
def test_on_attention_and_mlps_it_starts_as_nothing_and_merges(name):
    torch.manual_seed(0)
    encoder = build_sam(name, 32).image_encoder.eval()
    weights = {k: v.clone() for k, v in encoder.state_dict().items()}
    image = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        plain = encoder(image)
    ALL_OF_LITE.attach(encoder)
    torch.testing.assert_close(encoder(image), plain, atol=1e-5, rtol=1e-5)
    randomise_adapters(encoder)
    unmerged = encoder.train()(image)  # frozen statistics: training changes nothing
    unmerged.square().sum().backward()
    for key, parameter in encoder.named_parameters():
        assert (parameter.grad is not None) == ("lora_" in key), key
    LoRA().merge(encoder)
    with torch.no_grad():
        assert not torch.allclose(unmerged, plain, atol=1e-3)
        torch.testing.assert_close(encoder(image), unmerged, atol=1e-5, rtol=1e-5)
    merged = encoder.state_dict()
    assert merged.keys() == weights.keys()
    changed = {tuple(k.split(".")[-2:]) for k in merged if not merged[k].equal(weights[k])}
    mlp = ("lin1", "lin2") if name == "pocket" else ("fc1", "fc2")
    assert changed == {(layer, "weight") for layer in ("qkv", *mlp)}


def test_only_the_rows_of_q_and_v_change_in_tinyvit():
    torch.manual_seed(0)
    encoder = build_sam("mobile_sam", 32).image_encoder
    before = [block.attn.qkv.weight.detach().clone() for block in encoder.blocks]
    LoRA(targets=("q", "v")).attach(encoder)
    randomise_adapters(encoder)
    LoRA().merge(encoder)
    for block, old in zip(encoder.blocks, before, strict=True):
        q, k, v = (block.attn.qkv.weight - old).unflatten(0, (block.attn.heads, 3, -1)).unbind(1)
        assert not k.any()
        for part in (q, v):
            assert torch.linalg.matrix_rank(part.flatten(0, 1), rtol=1e-4) == 4


@pytest.fixture
def decoding():
    """A mask decoder, and a function that returns its output for an image without a prompt."""
    torch.manual_seed(0)
    sam = build_sam("pocket", 64).eval()
    picture = torch.rand(2, 128, 4, 4)
    sparse, dense = sam.prompt_encoder(points=None, boxes=None, masks=None)
    position = sam.prompt_encoder.get_dense_pe()
    return sam.mask_decoder, lambda: decode_masks(
        sam.mask_decoder, picture, position, sparse, dense
    )


@torch.no_grad()
def test_decoder_is_the_same_before_training_and_after_merging(decoding):
    decoder, answer = decoding
    before, keys = answer()[0], decoder.state_dict().keys()
    original = decoder.transformer.layers[1].cross_attn_token_to_image.v_proj.weight.clone()
    LoRA().attach_decoder(decoder)
    torch.testing.assert_close(answer()[0], before, atol=1e-5, rtol=0)
    for name, parameter in decoder.named_parameters():
        if "lora_" in name:
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    layer = decoder.transformer.layers[1].cross_attn_token_to_image.v_proj
    delta = layer.lora_B.default.weight @ layer.lora_A.default.weight
    unmerged = answer()[0]
    LoRA().merge_decoder(decoder)
    merged = answer()[0]
    assert (unmerged - before).abs().max() > 0.01
    torch.testing.assert_close(merged, unmerged, atol=1e-5, rtol=1e-5)
    assert decoder.state_dict().keys() == keys
    weight = decoder.transformer.layers[1].cross_attn_token_to_image.v_proj.weight
    torch.testing.assert_close(weight, original + delta, atol=1e-6, rtol=0)


def test_gradients_in_the_decoders_transformer_reach_the_adapters_only(decoding):
    decoder, answer = decoding
    LoRA(targets=("q", "k")).attach_decoder(decoder)
    sum(part.square().sum() for part in answer()).backward()
    adapted = set()
    for name, parameter in decoder.named_parameters():
        trains = "lora_" in name or not name.startswith("transformer.")
        assert (parameter.grad is not None) == trains, name
        if "lora_A" in name:
            adapted.add(name.removesuffix("_proj.lora_A.default.weight"))
    attentions = [
        f"transformer.layers.{layer}.{kind}"
        for layer in (0, 1)
        for kind in ("self_attn", "cross_attn_token_to_image", "cross_attn_image_to_token")
    ]
    attentions.append("transformer.final_attn_token_to_image")
    assert adapted == {f"{attention}.{target}" for attention in attentions for target in "qk"}
