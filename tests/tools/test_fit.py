"""The page "Will it fit my GPU?": its tables come from the library, and its sums are right."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from marks import needs_peak

from medsaga_lib.memory.plan import Plan, predict_ledger, predict_peak
from medsaga_lib.optim.galore import treatment
from medsaga_lib.recipes import get_recipe
from medsaga_lib.recipes.build import build_model
from medsaga_lib.recipes.recipe import changed
from tools import fit

ROOT = Path(__file__).parents[2]
GIB = 2**30


def read(backbone):
    path, constant = fit.TABLES[backbone]
    text = path.read_text(encoding="utf-8")
    return json.loads(text.removeprefix(f"const {constant} = ").rstrip(";\n"))


@pytest.fixture(scope="module")
def table():
    return read("vit_b")


@pytest.fixture(scope="module")
def lite():
    return read("lite_medsam")


def row_of(table, **wanted):
    """Return the only row with these values; the way to save memory is none by default."""
    plain = {"attention": "fused", "precision": "fp32", "checkpointing": False}
    (row,) = [row for row in table["rows"] if (plain | wanted).items() <= row.items()]
    return row


@pytest.mark.parametrize("backbone", fit.TABLES)
def test_table_holds_every_plan_once(backbone):
    table = read(backbone)
    keys = ("size", "attention", "precision", "checkpointing")
    rows = [
        (row["recipe"], row.get("stages", "whole"), *(row[key] for key in keys))
        for row in table["rows"]
    ]
    assert rows == [
        (entry.recipe, entry.stages, *(getattr(entry.plan, key) for key in keys))
        for entry in fit.entries(backbone)
    ]
    assert table["backbone"] == backbone
    assert table["classes"] == fit.CLASSES
    assert table["batches"] == list(fit.BATCHES)


def test_shapes_are_those_of_full_fine_tuning_today(table):
    assert table["shapes"] == fit.shapes()


@needs_peak
@pytest.mark.slow
@pytest.mark.no_cover  # fake tensors are computed in Python, and coverage doubles their time
@pytest.mark.parametrize(
    ("backbone", "recipe", "stages", "size"),
    [
        ("vit_b", "medsaga", "whole", 512),
        ("lite_medsam", "s_sam", "late", 128),
        ("lite_medsam", "full", "frozen", 128),
    ],
)
def test_row_of_the_table_is_what_the_library_predicts_today(backbone, recipe, stages, size):
    number, entry = next(
        (number, entry)
        for number, entry in enumerate(fit.entries(backbone))
        if (entry.recipe, entry.stages, entry.plan.size) == (recipe, stages, size)
        and entry.plan.attention == "fused"
    )
    row = fit.row(entry)
    assert read(backbone)["rows"][number] == row
    (first, last), (few, many) = fit.BATCHES, row["peaks"]
    line = few + (4 - first) * (many - few) / (last - first)  # what the page draws
    exact = predict_peak(fit.recipe_of(entry), replace(entry.plan, batch=4))
    assert line == pytest.approx(exact, rel=0.03)


def test_kept_copies_have_the_bytes_of_their_shapes(lite):
    def kept(**wanted):
        return row_of(lite, recipe="medsaga", **wanted)["kept_per_copy"]

    assert kept(stages="whole", size=128) == 0
    # the last stage: 320 channels; the image embedding: 256; one token per 4 x 4 pixels; float32
    assert kept(stages="late", size=128) == 320 * 32 * 32 * 4
    assert kept(stages="late", size=256) == 320 * 64 * 64 * 4
    assert kept(stages="frozen", size=128) == 256 * 32 * 32 * 4
    assert kept(stages="late", size=128, precision="bf16") == 320 * 32 * 32 * 2


def test_a_decoder_alone_is_the_same_for_three_methods(lite):
    medsaga, samed, full = (
        row_of(lite, recipe=name, stages="frozen", size=128) | {"recipe": ""}
        for name in ("medsaga", "samed", "full")
    )
    assert medsaga == samed == full


@pytest.fixture(scope="module")
def page(browser):
    """The page's own HTML and scripts in a browser, without the book around them."""
    content = (ROOT / "book" / "fit.md").read_text(encoding="utf-8").split("<script")[0]
    page = browser.new_page()
    page.set_content(content)
    tables = [path for path, _ in fit.TABLES.values()]
    for script in (fit.STATIC / "shared.js", *tables, fit.STATIC / "fit.js"):
        page.add_script_tag(path=script)
    return page


def set_to(page, form, **fields):
    """Put values into a form, as a reader does."""
    for name, value in fields.items():
        field = page.locator(f"#{form} [name={name}]")
        if isinstance(value, bool):
            field.set_checked(value)
        elif field.evaluate("f => f.tagName") == "SELECT":
            field.select_option(str(value))
        else:
            field.fill(str(value))


def largest_batch(row, card):
    """Return the largest batch on the straight line through the peaks at batch 1 and 12."""
    one, twelve = row["peaks"]
    return 12 + int((card * GIB - twelve) // ((twelve - one) / 11))


def test_answer_is_the_tables_peak_and_the_largest_batch_below_the_card(page, table):
    set_to(page, "fit", backbone="vit_b")
    set_to(page, "fit", recipe="samed", size=512, batch=12, card=24, fused=True)
    set_to(page, "fit", bf16=False, checkpointing=False, perLayer=False)
    row = row_of(table, recipe="samed", size=512)
    said = page.locator("#fit-answer p").first.inner_text()
    assert f"needs {row['peaks'][1] / GIB:.2f} GiB at its peak: it fits into 24 GiB" in said
    assert f"The largest batch that does is {largest_batch(row, 24)}." in said
    assert not page.locator("#fit [name=stages]").is_visible()
    assert "kept copy" not in page.locator("#fit-answer").inner_text()


@needs_peak
def test_few_bits_lower_states_and_peaks_by_the_same(table):
    row = row_of(table, recipe="full", size=256)
    plan = Plan("vit_b", 1, 256, fit.CLASSES, state_bits=4)
    recipe = get_recipe("full")
    assert predict_ledger(recipe, plan).states == row["states_4"]
    assert predict_peak(recipe, plan) == row["peaks"][0] - row["states"] + row["states_4"]
    assert row["states_4"] < row["states_8"] < 0.26 * row["states"]


@needs_peak
@pytest.mark.parametrize("successor", fit.OPTIMIZERS)
def test_successors_of_galore_change_the_peak_by_their_states(lite, successor):
    row = row_of(lite, recipe="medsaga", stages="late", size=128)
    recipe = changed(get_recipe("medsaga"), ["image_encoder.from_stage=3"])
    recipe = changed(recipe, ["image_encoder.copies=12", f"image_encoder.optimizer={successor}"])
    plan = Plan("lite_medsam", 12, 128, fit.CLASSES)
    states = row[f"states_{successor}"]
    assert predict_ledger(recipe, plan).states == states
    moved = row["peaks"][1] - row["states"] + states
    assert predict_peak(recipe, plan) == pytest.approx(moved, rel=0.01)


def test_successor_of_galore_in_the_form(page, table):
    set_to(page, "fit", backbone="vit_b")
    set_to(page, "fit", recipe="medsaga", size=512, batch=12, card=24, bits=8, fused=True)
    set_to(page, "fit", bf16=False, checkpointing=False, perLayer=False, galore="apollo")
    row = row_of(table, recipe="medsaga", size=512)
    # AdamW's states of the decoder have 8 bits; those of APOLLO keep 32
    states = row["states_apollo"] + row["states_8"] - row["states"]
    peak = row["peaks"][1] - row["states"] + states
    said = page.locator("#fit-answer").inner_text()
    assert f"MedSAGa needs {peak / GIB:.2f} GiB at its peak" in said
    full = row_of(table, recipe="full", size=512)
    assert f"{full['states_8'] / GIB:.2f}" in said  # the other methods have no GaLore
    set_to(page, "fit", bits=32, galore="galore")
    assert f"needs {row['peaks'][1] / GIB:.2f} GiB" in page.locator("#fit-answer").inner_text()


def test_states_of_few_bits_in_the_form(page, table):
    set_to(page, "fit", backbone="vit_b")
    set_to(page, "fit", recipe="full", size=512, batch=12, card=12, bits=8, fused=True)
    set_to(page, "fit", bf16=False, checkpointing=False, perLayer=False)
    row = row_of(table, recipe="full", size=512)
    peak = row["peaks"][1] - row["states"] + row["states_8"]
    said = page.locator("#fit-answer").inner_text()
    assert f"needs {peak / GIB:.2f} GiB at its peak" in said
    assert f"{row['states_8'] / GIB:.2f}" in said
    set_to(page, "fit", bits=32)
    assert f"needs {row['peaks'][1] / GIB:.2f} GiB" in page.locator("#fit-answer").inner_text()


def test_answer_for_late_stages_of_lite_medsam(page, lite):
    set_to(page, "fit", backbone="lite_medsam")
    set_to(page, "fit", stages="late", recipe="medsaga", size=128, batch=12, card=8)
    row = row_of(lite, recipe="medsaga", stages="late", size=128)
    said = page.locator("#fit-answer").inner_text()
    assert f"needs {row['peaks'][1] / GIB:.2f} GiB at its peak: it fits into 8 GiB" in said
    assert f"The largest batch that does is {largest_batch(row, 8)}." in said
    # 320 x 32 x 32 numbers of 4 bytes are 1.25 MiB, and 12 copies of 16 images are 192 of them
    assert "One kept copy of an image takes 1.25 MiB" in said
    assert "12 copies of each of 16 images take 240 MiB" in said


def test_sizes_and_stages_follow_the_backbone(page):
    for backbone, sizes in fit.SIZES.items():
        set_to(page, "fit", backbone=backbone)
        shown = page.locator("#fit [name=size] option").all_inner_texts()
        assert shown == [str(size) for size in sizes]
        assert page.locator("#fit [name=stages]").input_value() == "whole"
    assert page.locator("#fit [name=fused]").is_disabled()  # TinyViT never stores its maps
    set_to(page, "fit", checkpointing=True)
    set_to(page, "fit", stages="frozen")
    assert page.locator("#fit [name=checkpointing]").is_disabled()
    assert not page.locator("#fit [name=checkpointing]").is_checked()


def test_cards_include_small_ones_and_a_t4(page):
    cards = page.locator("#fit [name=card] option").all_inner_texts()
    assert {"4 GiB", "8 GiB", "15 GiB"} <= {card.split(",")[0] for card in cards}
    assert "15 GiB, as T4 (free Colab)" in cards


def test_the_pages_sentences_on_late_stages_are_the_tables(lite):
    content = (ROOT / "book" / "fit.md").read_text(encoding="utf-8")
    whole, late, frozen = (
        row_of(lite, recipe="medsaga", stages=stages, size=128)["peaks"][1] / GIB
        for stages in fit.STAGES
    )
    assert f"{whole:.1f} GiB if it trains the whole encoder" in content
    assert f"{late:.1f} GiB if it trains the last stage" in content
    assert f"{frozen:.1f} GiB if it trains the decoder alone" in content
    last, embedding = (
        row_of(lite, recipe="medsaga", stages=stages, size=128)["kept_per_copy"] / 2**20
        for stages in ("late", "frozen")
    )
    assert f"takes {last:.2f} MiB for the last stage and {embedding:.0f} MiB for the" in content


def test_original_attention_is_tabled_without_other_savings(page):
    set_to(page, "fit", backbone="vit_b")
    set_to(page, "fit", fused=True, checkpointing=True)
    set_to(page, "fit", fused=False)
    assert page.locator("#fit [name=checkpointing]").is_disabled()
    assert not page.locator("#fit [name=checkpointing]").is_checked()
    set_to(page, "fit", fused=True)


def less(ours, theirs):
    return 100 * (1 - ours / theirs)


def test_readings_of_the_claim_are_the_ledgers(page):
    def shown(reading):
        page.locator(f"#claim [data-reading={reading}]").click()
        return float(page.locator("#claim-number").inner_text().removesuffix(" %"))

    plan = Plan("vit_b", 12, 512, 8, attention="original")
    galore, adamw = (predict_ledger(get_recipe(name), plan) for name in ("medsaga", "full"))
    lean = predict_ledger(get_recipe("medsaga"), Plan("vit_b", 12, 512, 8, per_layer=True))
    fixed = adamw.weights + adamw.gradients + adamw.states
    one_side = lean.weights + lean.gradients + lean.states
    assert shown("abstract") == pytest.approx(less(one_side, fixed), abs=1)
    both = less(one_side, fixed - adamw.gradients + lean.gradients)
    assert shown("fair") == pytest.approx(both, abs=1)
    assert shown("card") == pytest.approx(less(galore.sum, adamw.sum), abs=1)
    # what the page says in words
    said = {"states": 90, "abstract": 67, "fair": 56, "card": 4, "lean": 30}
    assert {reading: shown(reading) for reading in said} == said


def test_the_package_holds_the_whole_factor_of_each_matrix(page):
    """The bytes of `hidden` that chapter 3 adds to the ledger, at the same place."""
    recipe = get_recipe("medsaga")
    with torch.device("meta"):
        encoder = build_model(recipe, "vit_b", 512, 8, "random").sam.image_encoder
    plans = treatment(encoder, recipe.image_encoder.config(encoder))
    matrices = [min(t.matrix) for t in plans if t.how == "projected" and len(t.shape) == 2]
    hidden = sum(4 * short * (short - 64) for short in matrices)
    plan = Plan("vit_b", 12, 512, 8, attention="original")
    galore, adamw = (predict_ledger(get_recipe(name), plan) for name in ("medsaga", "full"))
    page.locator("#claim [data-reading=card]").click()
    shown = float(page.locator("#claim-published").inner_text().removesuffix(" %"))
    assert hidden / 2**20 == pytest.approx(99, abs=0.5)
    assert shown == round(less(galore.sum + hidden, adamw.sum))
    for reading, said in {"states": "75 %", "lean": "25 %"}.items():  # what the page says in words
        page.locator(f"#claim [data-reading={reading}]").click()
        assert page.locator("#claim-published").inner_text() == said


def test_rank_slider_leads_from_small_states_to_adamw(page):
    page.locator("#claim [data-reading=states]").click()
    numbers = []
    for rank in (4, 64, 384):
        set_to(page, "claim", rank=rank)
        numbers.append(float(page.locator("#claim-number").inner_text().removesuffix(" %")))
    assert numbers == sorted(numbers, reverse=True)
    assert numbers[0] > 95
