"""Who trains which tensor of a SAM, and how far a step goes."""

import pytest
import torch
from torch.optim import AdamW, Muon

from medsaga_lib.backbones.sam import build_sam
from medsaga_lib.pretraining.optimizers import build_optimizers
from medsaga_lib.pretraining.pictures import Settings


@pytest.fixture
def sam():
    torch.manual_seed(0)
    return build_sam("pocket", 64)


def test_every_tensor_has_one_group_and_only_weights_decay(sam):
    optimizers = build_optimizers(sam, Settings(weight_decay=0.3, patch_rate=0.2))
    found = [
        (parameter, (type(optimizer), group["weight_decay"], group["relative_rate"]))
        for optimizer in optimizers
        for group in optimizer.param_groups
        for parameter in group["params"]
    ]
    owner = dict(found)
    assert len(found) == len(owner)
    assert owner.keys() == set(sam.parameters())
    for name, expected in {
        "image_encoder.blocks.5.attn.qkv.weight": (Muon, 0.3, 1),
        "mask_decoder.transformer.layers.0.mlp.lin1.weight": (Muon, 0.3, 1),
        "image_encoder.neck.2.weight": (AdamW, 0.3, 1),
        "mask_decoder.output_upscaling.0.weight": (AdamW, 0.3, 1),
        "image_encoder.blocks.5.attn.qkv.bias": (AdamW, 0, 1),
        "image_encoder.blocks.5.attn.rel_pos_h": (AdamW, 0, 1),
        "image_encoder.blocks.5.norm1.weight": (AdamW, 0, 1),
        "image_encoder.pos_embed": (AdamW, 0, 1),
        "mask_decoder.mask_tokens.weight": (AdamW, 0, 1),
        "prompt_encoder.point_embeddings.0.weight": (AdamW, 0, 1),
        "image_encoder.patch_embed.proj.weight": (AdamW, 0, 0.2),
    }.items():
        assert owner[sam.get_parameter(name)] == expected, name


def test_a_step_moves_all_directions_of_a_matrix_by_adamws_length(sam):
    """The update is nearly orthogonal, with 0.2 of the learning rate in the root mean square."""
    muon, _ = build_optimizers(sam, Settings(weight_decay=0.0))
    weight = sam.image_encoder.blocks[0].mlp.lin1.weight
    before = weight.detach().clone()
    weight.grad = torch.randn(weight.shape) * torch.linspace(1e-3, 1, weight.shape[1])  # uneven
    muon.param_groups[0]["lr"] = 1.0
    muon.step()
    step = (weight - before).detach()
    assert step.square().mean().sqrt().item() == pytest.approx(0.2, rel=0.2)
    even = 0.2 * weight.shape[0] ** 0.5
    # Its iteration takes singular values to between 0.7 and 1.2 (Jordan et al.), small ones less
    found = torch.linalg.svdvals(step) / even
    assert found[: len(found) // 2].amin() > 0.6
    assert found[0] < 1.3
