"""The form for a plan in a notebook: its numbers are those of the ledger."""

import pytest

from medsaga_lib.memory.controls import answer, plan_controls
from medsaga_lib.memory.plan import Plan, predict_ledger, predict_peak
from medsaga_lib.recipes import get_recipe
from medsaga_lib.recipes.recipe import changed

ALL_ON = {"fused": True, "checkpointing": True, "bf16": True, "per_layer": True}
LATE = "image_encoder.from_stage=3"


@pytest.mark.parametrize(("card", "verdict"), [(4, "it fits"), (0, "it does not fit")])
def test_the_sentence_has_the_predicted_peak(card, verdict):
    sentence, figure = answer("lite_medsam", "medsaga", 3, 128, 2, card, **ALL_ON)
    how = {"checkpointing": True, "per_layer": True, "precision": "bf16"}
    plan = Plan("lite_medsam", 2, 128, 8, **how)
    recipe = changed(get_recipe("medsaga"), [LATE])
    peak = predict_peak(recipe, plan) / 2**30
    assert sentence == f"MedSAGa needs {peak:.2f} GiB at its peak: {verdict} into {card} GiB."
    assert sentence in figure.get_label()
    total = f"{predict_ledger(recipe, plan).sum / 2**20:,.0f}"
    assert total in [text.get_text() for text in figure.axes[0].texts]


def test_controls_predict_while_they_are_changed():
    form = plan_controls("A caption.")
    assert form.choices["size"].value == 512  # half of SAM's 1024
    form.choices["backbone"].value = "lite_medsam"
    assert form.choices["size"].value == 128
    before = form.said.value
    form.choices["from_stage"].value = 3
    assert form.said.value != before
    form.choices["from_stage"].value = 9
    assert "this image encoder has 4 stages" in form.said.value
