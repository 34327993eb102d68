"""Networks without SAM: their sizes, their inputs, and a training run."""

from dataclasses import replace

import pytest
import torch
from runs import train

from medsaga_lib.data.shots import choose_shots
from medsaga_lib.errors import UserError
from medsaga_lib.models.scratch import NETWORKS, FromScratch, network_size
from medsaga_lib.recipes import get_recipe
from medsaga_lib.recipes.build import build_model, checkpoint_blocks
from medsaga_lib.training.loop import validation_dice


@pytest.mark.parametrize("name", NETWORKS)
def test_logits_have_the_pictures_size_and_every_class(name):
    size = network_size(name, 3 * 2 ** NETWORKS[name].halvings)
    model = FromScratch(name, size, 2)
    assert model(torch.rand(2, 3, size, size)).shape == (2, 3, size, size)


@pytest.mark.parametrize("name", NETWORKS)
def test_no_side_can_be_halved_once_more(name):
    """An odd map on the way cannot be doubled back to the size that it came from."""
    size = 3 * 2 ** (NETWORKS[name].halvings - 1)
    with pytest.raises(UserError, match=f"Input size {size} cannot be halved"):
        network_size(name, size)
    with pytest.raises(RuntimeError, match=r"must match|Expected size"):
        FromScratch(name, size, 2)(torch.rand(2, 3, size, size))


def test_segresnet_is_as_large_as_the_unet():
    sizes = [
        sum(p.numel() for p in FromScratch(name, 32, 8).parameters())
        for name in ("unet", "segresnet")
    ]
    assert sizes[1] == pytest.approx(sizes[0], rel=0.05)


def test_first_layer_sees_pixels_between_minus_one_and_one():
    model = FromScratch("unet", 32, 1)
    seen = []
    model.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model(torch.stack([torch.zeros(3, 32, 32), torch.ones(3, 32, 32)]))
    assert seen[0][0].unique().tolist() == [-1]
    assert seen[0][1].unique().tolist() == [1]


def test_each_network_has_its_own_sizes():
    assert network_size("unet", None) == 256
    with pytest.raises(UserError, match="100 cannot be halved 4 times, as unet does; choose 96"):
        network_size("unet", 100)
    assert network_size("segresnet", 104) == 104
    with pytest.raises(UserError, match="16 cannot be halved 4 times, as unet does; choose 32"):
        network_size("unet", 16)  # instance norm would see a single pixel


def test_there_is_nothing_to_recompute():
    model = build_model(get_recipe("unet"), "none", 32, 1, "random")
    with pytest.raises(UserError, match="no blocks to recompute"):
        checkpoint_blocks(model, "fp32")


@pytest.mark.no_cover
def test_dae_former_learns_four_pictures(dataset):
    """With its authors' optimizer, rate and loss."""
    recipe = replace(get_recipe("dae_former"), steps=30, batch=4, augmentation="none")
    result = train(recipe, dataset, 4, size=32, validations=0)
    assert validation_dice(result.model, choose_shots(dataset, 4, 32, seed=0)) > 0.7
