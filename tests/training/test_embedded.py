"""Kept embeddings equal those computed anew, and so does the training on them."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from runs import train

from medsaga_lib.data.shots import choose_shots
from medsaga_lib.data.transforms import Augment
from medsaga_lib.recipes import RECIPES, get_recipe
from medsaga_lib.recipes.build import build_model, trained_part
from medsaga_lib.training.embedded import Embedded
from medsaga_lib.training.run_folder import Settings
from medsaga_lib.training.run_samples import keep
from medsaga_lib.training.setup import set_up

OPTIONS = {"size": 64, "validations": 2}
SMALL, NONE = Augment("small"), Augment("none")


def average(image):
    return image.mean((1, 2), keepdim=True)


def test_copies_are_the_sample_itself_and_changed_ones(dataset):
    samples = choose_shots(dataset, 3, 32, 0)
    kept = Embedded(samples, average, SMALL, copies=4, seed=7)
    assert len(kept) == 12
    for index in range(3):
        assert kept[index]["image"].equal(average(samples[index]["image"]))
        assert kept[index]["label"].equal(samples[index]["label"].to(torch.int16))
        copies = [kept[index + 3 * copy]["image"] for copy in range(4)]
        assert len({copy.sum().item() for copy in copies}) == 4
    again, other = (Embedded(samples, average, SMALL, 4, seed) for seed in (7, 8))
    assert all(again[i]["image"].equal(kept[i]["image"]) for i in range(12))
    assert not other[11]["image"].equal(kept[11]["image"])
    assert len(Embedded(samples, average, NONE, copies=4)) == 3


def test_a_progress_bar_counts_the_kept_images(dataset, capsys):
    samples = choose_shots(dataset, 3, 32, 0)
    Embedded(samples, average, SMALL, copies=4)
    assert capsys.readouterr().err == ""
    Embedded(samples, average, SMALL, copies=4, progress=True)
    assert "12/12" in capsys.readouterr().err


@torch.no_grad()
def test_kept_embeddings_give_the_logits_of_the_whole_network(dataset):
    recipe = get_recipe("frozen_encoder")
    model = build_model(recipe, "pocket", 64, 3)
    network = trained_part(recipe, model)
    samples = choose_shots(dataset, 3, 64, 0)
    kept = Embedded(samples, partial(keep, network, "fp32"), NONE)
    images = torch.stack([samples[i]["image"] for i in range(3)])
    embeddings = torch.stack([kept[i]["image"] for i in range(3)])
    torch.testing.assert_close(embeddings, model.embed(images), atol=1e-5, rtol=0)
    torch.testing.assert_close(network(embeddings), model(images), atol=1e-4, rtol=1e-5)


def test_training_on_them_is_training_of_the_decoder_alone(dataset):
    """Both runs see one image at a time, so they are equal bit for bit."""
    options = {"steps": 4, "batch": 1, "augmentation": "none"}
    kept, anew = (
        train(replace(get_recipe(name), **options), dataset, 3, **OPTIONS)
        for name in ("frozen_encoder", "decoder_only")
    )
    for key, tensor in anew.model.state_dict().items():
        assert kept.model.state_dict()[key].equal(tensor), key
    assert [row["loss"] for row in kept.log] == [row["loss"] for row in anew.log]
    for ours, theirs in zip(kept.log, anew.log, strict=True):
        assert ours["val_dice"] == pytest.approx(theirs["val_dice"], abs=1e-3, nan_ok=True)


def test_without_copies_it_is_the_decoder_only_recipe(dataset):
    recipe = replace(get_recipe("frozen_encoder"), steps=2, batch=2)
    without = train(recipe, dataset, 3, changes=["image_encoder.copies=0"], **OPTIONS)
    plain = replace(get_recipe("decoder_only"), steps=2, batch=2)
    plain = train(plain, dataset, 3, **OPTIONS)
    for key, tensor in plain.model.state_dict().items():
        assert without.model.state_dict()[key].equal(tensor), key


ADAPTED = ("medsaga", "medsaga_v1", "samed", "samed_s", "s_sam", "svf", "adaptive_sam",
           "sam_adapter", "lite_medsam_lora", "full")  # fmt: skip


@pytest.mark.parametrize("name", ADAPTED)
@pytest.mark.parametrize(("backbone", "stage"), [("pocket", 3), ("mobile_sam", 2)])
def test_kept_stages_change_no_bit(name, backbone, stage, dataset, monkeypatch):
    """The other run keeps the same copies as images and computes every stage in every step.

    Both see one image at a time: the kernels of some processors round a batch in another way.
    """
    kept, anew = kept_and_anew(name, backbone, stage, 1, dataset, monkeypatch)
    assert losses(kept) == losses(anew)
    for key, tensor in anew.model.state_dict().items():
        assert kept.model.state_dict()[key].equal(tensor), key


@pytest.mark.parametrize("name", ["medsaga", "samed"])
def test_kept_stages_of_a_batch_give_the_same_losses(name, dataset, monkeypatch):
    """As above for LiteMedSAM, from which most late stages start, and 3 images in a batch.

    The two runs are equal bit for bit where kernels round a batch as they round an image. The
    tolerance is for other processors. It is on losses, because AdamW turns a rounded gradient near
    0 into a step of the full rate.
    """
    kept, anew = kept_and_anew(name, "lite_medsam", 2, 3, dataset, monkeypatch)
    assert losses(kept) == pytest.approx(losses(anew), rel=1e-4)
    assert len({f"{loss:.3f}" for loss in losses(kept)}) == 3  # a step has another loss


def kept_and_anew(name, backbone, stage, batch, dataset, monkeypatch):
    """The results of three steps on kept stages, and on the images that these were made from."""
    recipe = replace(get_recipe(name), steps=3, batch=batch)
    recipe = replace(
        recipe, image_encoder=replace(recipe.image_encoder, from_stage=stage, copies=2)
    )
    options = {"size": 64, "backbone": backbone, "weights": "random", "validations": 1}
    kept = train(recipe, dataset, 2, **options)
    monkeypatch.setattr(type(recipe.image_encoder), "kept_part", lambda how, encoder: 0)
    return kept, train(recipe, dataset, 2, **options)


def losses(result):
    return [row["loss"] for row in result.log]


def test_every_recipe_that_adapts_an_encoder_is_tried():
    adapts = {n for n, r in RECIPES.items() if r.network is None and r.steps and not r.synthesis}
    assert adapts - set(ADAPTED) == {
        *("medsaga_v2", "decoder_only", "frozen_encoder"),
        "late_stages",  # `full` with other values
    }


def test_no_more_copies_than_the_steps_use(dataset):
    recipe = replace(get_recipe("frozen_encoder"), steps=3, batch=2)  # 6 pictures of 3 samples
    run = set_up(recipe, dataset, Settings(shots=3, size=64), None)
    assert len(run.batches.samples) == 2 * 3
