"""The U-Net: the count of its layers, its sizes, and its place in the loop."""

import pytest
import torch

from medsaga_lib.errors import UserError
from medsaga_lib.networks import FromScratch, network_size
from medsaga_lib.recipes import get_recipe
from medsaga_lib.recipes.build import build_model, checkpoint_blocks


def test_logits_have_the_pictures_size_and_every_class():
    model = FromScratch("unet", 48, 2)
    assert model(torch.rand(2, 3, 48, 48)).shape == (2, 3, 48, 48)


def test_first_layer_sees_pixels_between_minus_one_and_one():
    model = FromScratch("unet", 32, 1)
    seen = []
    model.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model(torch.stack([torch.zeros(3, 32, 32), torch.ones(3, 32, 32)]))
    assert seen[0][0].unique().tolist() == [-1]
    assert seen[0][1].unique().tolist() == [1]


def test_size_must_be_halved_four_times():
    assert network_size(None) == 256
    with pytest.raises(UserError, match="100 cannot be halved four times; choose 96"):
        network_size(100)


def test_there_is_nothing_to_recompute():
    model = build_model(get_recipe("unet"), "none", 32, 1, "random")
    with pytest.raises(UserError, match="no blocks to recompute"):
        checkpoint_blocks(model, "fp32")
