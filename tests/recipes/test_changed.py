"""Recipes with other values, given in words."""

from dataclasses import replace

import pytest

from medsaga_lib.errors import UserError
from medsaga_lib.recipes import get_recipe
from medsaga_lib.recipes.recipe import changed

MEDSAGA, SAMED = get_recipe("medsaga"), get_recipe("samed")


def test_words_do_what_replace_does():
    words = ["lr=1e-3", "betas=0.8,0.9", "steps=7", "start=random", "image_encoder.moments=keep"]
    words += ["image_encoder.rank=8", "image_encoder.stagger=true", "image_encoder.refresh=20"]
    galore = replace(MEDSAGA.image_encoder, moments="keep", rank=8, stagger=True, refresh=20)
    values = {"lr": 1e-3, "betas": (0.8, 0.9), "steps": 7, "start": "random"}
    assert changed(MEDSAGA, words) == replace(MEDSAGA, **values, image_encoder=galore)
    lora = replace(SAMED.image_encoder, targets=("q", "k", "v"))
    assert changed(SAMED, ["image_encoder.targets=q,k,v"]).image_encoder == lora
    assert changed(SAMED, []) is SAMED


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("lr", "write KEY=VALUE"),
        ("rate=1", "there is no rate; choose one of name, title"),
        ("lr=fast", "'fast' is not a number"),
        ("steps=1.5", "'1.5' is not a number"),
        ("start=warm", "choose one of copied, random"),
        ("image_encoder=GaLore", "name one of its parts, as image_encoder.lr"),
        ("image_encoder.stagger=1", "choose one of true, false"),
        ("lr.x=1", "lr is 0.005"),
    ],
)
def test_change_that_cannot_be_says_why(change, sentence):
    with pytest.raises(UserError, match=sentence):
        changed(MEDSAGA, [change])
