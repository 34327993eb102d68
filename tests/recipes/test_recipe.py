"""A recipe's values: given in words, or refused."""

from dataclasses import replace

import pytest

from medsaga_lib.errors import UserError
from medsaga_lib.recipes import get_recipe
from medsaga_lib.recipes.recipe import changed, has_rank, with_rank

MEDSAGA, SAMED = get_recipe("medsaga"), get_recipe("samed")


def test_words_do_what_replace_does():
    words = ["lr=1e-3", "betas=0.8,0.9", "steps=7", "start=random", "image_encoder.moments=keep"]
    words += ["image_encoder.rank=8", "image_encoder.refresh=20"]
    galore = replace(MEDSAGA.image_encoder, moments="keep", rank=8, refresh=20)
    values = {"lr": 1e-3, "betas": (0.8, 0.9), "steps": 7, "start": "random"}
    assert changed(MEDSAGA, words) == replace(MEDSAGA, **values, image_encoder=galore)
    lora = replace(SAMED.image_encoder, targets=("q", "k", "v"))
    assert changed(SAMED, ["image_encoder.targets=q,k,v"]).image_encoder == lora
    assert changed(SAMED, []) is SAMED


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("lr", "write KEY=VALUE"),
        ("rate=1", "there is no rate; choose one of image_encoder, start"),
        ("name=mine", "there is no name"),
        ("lr=fast", "'fast' is not a number"),
        ("steps=1.5", "'1.5' is not a whole number"),
        ("start=warm", "choose one of copied, random"),
        ("image_encoder=GaLore", "name one of its parts, for example image_encoder."),
        ("lr.x=1", "lr is 0.005"),
        ("lr=nan", "lr is nan; it must be a number of at least 0"),
        ("lr=-1", "lr is -1.0"),
        ("batch=0", "batch is 0; it must be a number of at least 1"),
        ("image_encoder.rank=0", "rank is 0"),
        ("ce_weight=nan", "ce_weight is nan"),
        ("decay_power=-1", "decay_power is -1.0; it must be a number of at least 0"),
        ("betas=0.9", "write 2 values"),
        ("betas=0.9,0.99,0.5", "write 2 values"),
        ("betas=0.9,1", "betas are"),
    ],
)
def test_change_that_cannot_be_says_why(change, sentence):
    with pytest.raises(UserError, match=sentence):
        changed(MEDSAGA, [change])


def test_what_the_published_optimizer_has_not_is_refused():
    words = ["image_encoder.optimizer=published", "image_encoder.moments=keep"]
    with pytest.raises(UserError, match="galore-torch has no options moments and"):
        changed(MEDSAGA, words)
    assert changed(MEDSAGA, words[:1]).image_encoder.optimizer == "published"


def test_true_and_false_are_words():
    ssam = get_recipe("s_sam")
    assert not changed(ssam, ["image_encoder.shift=false"]).image_encoder.shift
    with pytest.raises(UserError, match="choose one of true, false"):
        changed(ssam, ["image_encoder.shift=0"])


@pytest.mark.parametrize("order", [1, -1])
def test_changes_count_together_in_any_order(order):
    """Kept outputs need frozen stages."""
    words = ["image_encoder.copies=4", "image_encoder.from_stage=2"][::order]
    how = changed(get_recipe("medsaga"), words).image_encoder
    assert (how.copies, how.from_stage) == (4, 2)
    with pytest.raises(UserError, match=r"set image_encoder\.from_stage too"):
        changed(get_recipe("medsaga"), words[:1] if order == 1 else words[1:])


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("unet", "image_encoder.copies=2", "unet has no image encoder"),
        ("cheap_lunch", "image_encoder.copies=2", "synthesises new images in every step"),
        ("lite_medsam_lora", "lift=fourier", "for class tokens and names, not for boxes"),
        ("samed", "lift_decay=10", "samed has no lift; omit lift_decay"),
        ("late_stages", "lift_decay=-1", "lift_decay is -1.0; it must be a number of at least 0"),
        ("unet", "clip_norm=0", "clip_norm is 0, so nothing would be learned"),
        ("unet", "clip_norm=-1", "clip_norm is -1.0; it must be a number of at least 0"),
        ("medsaga", "image_encoder.from_stage=-1", "must be a number of at least 0"),
        ("frozen_encoder", "image_encoder.from_stage=2", "trains no stage of the image encoder"),
    ],
)
def test_what_a_recipe_cannot_have_is_refused(name, change, said):
    with pytest.raises(UserError, match=said):
        changed(get_recipe(name), [change])


def test_a_decoder_gets_the_encoders_lora_or_none():
    with pytest.raises(UserError, match=r"there is none in medsaga; choose whole"):
        replace(get_recipe("medsaga"), decoder="lora")


def test_a_word_that_is_no_choice_is_refused():
    medsaga = get_recipe("medsaga")
    with pytest.raises(UserError, match=r"decoder is 'decoder_only'; choose one of whole, lora,"):
        replace(medsaga, decoder="decoder_only")
    with pytest.raises(UserError, match=r"augmentation is 'strong'; choose one of samed, small"):
        replace(medsaga, augmentation="strong")
    with pytest.raises(UserError, match=r"moments is 'turn'; choose one of rotate, keep"):
        replace(medsaga, image_encoder=replace(medsaga.image_encoder, moments="turn"))


def test_sgd_does_not_go_with_galore():
    with pytest.raises(UserError, match="adamw only"):
        replace(MEDSAGA, optimizer="sgd")


def test_the_rank_of_a_recipe_that_has_one():
    assert with_rank(SAMED, 2).image_encoder.rank == 2
    assert with_rank(MEDSAGA, 2).image_encoder.rank == 2
    assert has_rank(SAMED)
    assert not has_rank(get_recipe("unet"))


def test_an_unknown_recipe_names_the_known_ones():
    with pytest.raises(UserError, match=r"'samed_xl'.*medsaga, samed, samed_s"):
        get_recipe("samed_xl")
