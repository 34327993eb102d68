"""`medsaga methods NAME`: every value of every recipe is shown, with a source."""

import json
from dataclasses import is_dataclass

import pytest

from medsaga_lib.recipes import RECIPES
from medsaga_lib.recipes.recipe import changed
from medsaga_lib.recipes.sources import values_of


@pytest.mark.parametrize("name", RECIPES)
def test_every_value_has_a_source_and_is_the_recipes(name):
    recipe = RECIPES[name]
    values = values_of(recipe)
    assert len(values) > 1
    for key, value, source, _ in values:
        assert source, f"{name}: {key} = {value} has no source in the recipe's file"
        record = recipe
        for part in key.split("."):
            record = getattr(record, part)
        assert value == (type(record).__name__ if is_dataclass(record) else record)


def found(name):
    return {value.key: value for value in values_of(RECIPES[name])}


def test_sources_are_read_through_the_recipes_that_one_is_made_of():
    samed_s = found("samed_s")
    assert samed_s["lr"] == ("lr", 0.005, "section 4.1", "samed")
    assert samed_s["decoder"].set_in == "samed_s"
    v1 = found("medsaga_v1")
    assert v1["image_encoder.others"].set_in == "medsaga_v1"
    assert "our reading" in v1["image_encoder.others"].source
    assert v1["image_encoder.scale"] == (
        "image_encoder.scale", 0.25, "alpha; GaLore's reference", "default",
    )  # fmt: skip
    assert found("svf")["lr"].set_in == "svf"


def test_what_means_nothing_is_not_shown():
    assert not {"lr", "batch", "start"} & found("sam_zero_shot").keys()
    assert not {"head", "decoder", "image_encoder"} & found("unet").keys()
    assert "text" in found("s_sam")
    assert "text" not in found("samed")


def test_a_changed_recipe_shows_its_own_values():
    recipe = changed(RECIPES["samed"], ["lr=0.001"])
    assert {value.key: value.value for value in values_of(recipe)}["lr"] == 0.001


def test_command_line(medsaga):
    code, text, _ = medsaga("methods", "medsaga")
    assert code == 0
    assert "image_encoder.refresh" in text
    assert "section 4.2" in text
    code, text, _ = medsaga("methods", "cheap_lunch", "--json")
    record = json.loads(text)
    assert record["name"] == "cheap_lunch"
    assert {"key", "value", "source", "set_in"} == record["values"][0].keys()
    code, _, error = medsaga("methods", "medsagaa")
    assert code == 2
    assert "There is no recipe 'medsagaa'; choose one of" in error
