"""An image encoder cut before any of its parts computes the same, and freezes what it should."""

import pytest
import torch

from medsaga_lib.errors import UserError
from medsaga_lib.models.sam import build_sam
from medsaga_lib.models.stages import early, freeze_early, late, late_blocks, stages

ENCODERS = [("pocket", 64, 6, 6), ("vit_b", 64, 12, 12), ("lite_medsam", 32, 4, 10)]


def encoder_of(name, size):
    torch.manual_seed(0)
    encoder = build_sam(name, size).image_encoder
    for parameter in encoder.parameters():  # positions and biases start at 0
        torch.nn.init.normal_(parameter, std=0.05)
    return encoder


@torch.no_grad()
@pytest.mark.parametrize(("name", "size", "count", "blocks"), ENCODERS)
def test_the_halves_are_the_whole(name, size, count, blocks):
    encoder, images = encoder_of(name, size).eval(), torch.rand(2, 3, size, size)
    whole = encoder(images)
    assert len(stages(encoder)) == count
    assert len(late_blocks(encoder, 0)) == blocks
    for part in range(count + 2):
        assert late(encoder, early(encoder, images, part), part).equal(whole)
    assert early(encoder, images, 0) is images
    assert early(encoder, images, count + 1).equal(whole)


@pytest.mark.parametrize(("name", "size", "count", "blocks"), ENCODERS)
def test_what_is_early_is_frozen_and_nothing_else(name, size, count, blocks):
    """The late part does not depend on a frozen tensor, and depends on every other."""
    for part in (0, 1, count // 2, count):
        encoder, images = encoder_of(name, size), torch.rand(2, 3, size, size)
        freeze_early(encoder, part)
        kept = early(encoder, images, part)
        assert not kept.requires_grad
        late(encoder, kept, part).square().sum().backward()
        for key, parameter in encoder.named_parameters():
            assert parameter.requires_grad == (parameter.grad is not None), key
        trained = [key for key, p in encoder.named_parameters() if p.requires_grad]
        assert ("patch_embed" in " ".join(trained)) == (part == 0)
        assert any(key.startswith("neck") for key in trained)
    assert all(key.startswith("neck") for key in trained)


def test_the_blocks_of_late_stages_of_tinyvit():
    encoder = encoder_of("lite_medsam", 32)
    assert [len(late_blocks(encoder, part)) for part in range(5)] == [10, 10, 8, 2, 0]


def test_a_stage_that_does_not_exist():
    with pytest.raises(UserError, match=r"from_stage is 5, but this image encoder has 4 stages"):
        freeze_early(encoder_of("lite_medsam", 32), 5)
