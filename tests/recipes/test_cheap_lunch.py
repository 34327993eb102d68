"""Cheap Lunch and zero-shot SAM: numbers of parameters, the start, and pasted exemplars."""

from dataclasses import replace

import torch
from runs import train

from medsaga_lib.data.catalog import open_dataset
from medsaga_lib.memory.plan import count
from medsaga_lib.recipes import get_recipe
from medsaga_lib.recipes.build import build_model, trainable
from medsaga_lib.recipes.recipe import changed


def test_cheap_lunch_trains_samed_s_less_the_masks_that_points_do_not_need():
    """SAMed_s has a token for each of 9 classes at 8 classes; SAM has 4 tokens."""
    counted = count(get_recipe("cheap_lunch"), "vit_b", 512, 8)
    hypernetwork = 2 * (256 + 1) * 256 + (256 + 1) * 32
    token, score = 256, 256 + 1
    assert counted.trainable == 1_645_909 - 5 * (hypernetwork + token + score) == 944_304
    assert count(get_recipe("cheap_lunch"), "vit_b", 512, 2).trainable == 944_304
    assert count(get_recipe("sam_zero_shot"), "vit_b", 1024, 8).trainable == 0
    assert count(get_recipe("sam_zero_shot"), "vit_b", 1024, 8).total == 93_735_472  # SAM's


def test_attached_it_answers_as_sam_does_with_adapters_in_encoder_and_decoder():
    recipe = get_recipe("cheap_lunch")
    model = build_model(recipe, "pocket", 64, 2, "pretrained").eval()
    plain = replace(get_recipe("sam_zero_shot"), answer="single")
    sam = build_model(plain, "pocket", 64, 2, "pretrained").eval()
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    coordinates, roles = torch.full((2, 2, 2, 2), 20.0), torch.tensor([1, -1]).expand(2, 2, 2)
    with torch.no_grad():
        ours, theirs = (m(images, coordinates, roles) for m in (model, sam))
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    adapted = {name for name in trainable(model) if "lora_" in name}
    assert sum(".image_encoder." in name for name in adapted) == 6 * 2 * 2  # blocks, q and v, A, B
    assert sum(".mask_decoder." in name for name in adapted) == 7 * 2 * 2  # attentions


def test_synthesis_changes_the_training_and_its_absence_does_not(phantoms):
    dataset, recipe = open_dataset(phantoms), replace(get_recipe("cheap_lunch"), steps=2, batch=2)
    options = {"weights": "random", "size": 32, "validations": 0}
    losses = [
        [row["loss"] for row in train(one, dataset, 2, **options).log]
        for one in (
            changed(recipe, ["synthesis.share=1"]),
            changed(recipe, ["synthesis.share=0"]),
            replace(recipe, synthesis=None),
        )
    ]
    assert losses[1] == losses[2]
    assert losses[0] != losses[1]
