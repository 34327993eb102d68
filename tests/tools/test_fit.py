"""The page "Will it fit my GPU?": its table comes from the library, and its sums are right."""

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
from tools import fit, site

ROOT = Path(__file__).parents[2]
GIB = 2**30


@pytest.fixture(scope="module")
def table():
    text = fit.TABLE.read_text(encoding="utf-8")
    return json.loads(text.removeprefix("const FIT = ").rstrip(";\n"))


def test_table_holds_every_plan_once(table):
    keys = ("recipe", "size", "attention", "precision", "checkpointing")
    rows = [tuple(row[key] for key in keys) for row in table["rows"]]
    plans = [(name, *(getattr(plan, key) for key in keys[1:])) for name, plan in fit.plans()]
    assert rows == plans
    assert table["batches"] == list(fit.BATCHES)
    assert table["shapes"] == fit.shapes()


@needs_peak
@pytest.mark.slow
@pytest.mark.no_cover  # fake tensors are computed in Python, and coverage doubles their time
def test_row_of_the_table_is_what_the_library_predicts_today(table):
    name, plan = fit.plans()[6]
    row = fit.row(name, plan)
    assert table["rows"][6] == row
    (first, last), (few, many) = fit.BATCHES, row["peaks"]
    line = few + (4 - first) * (many - few) / (last - first)  # what the page draws
    exact = predict_peak(get_recipe(name), replace(plan, batch=4))
    assert line == pytest.approx(exact, rel=0.03)


@pytest.fixture(scope="module")
def page():
    """The page's own HTML and scripts in a browser, without the book around them."""
    if site.browser_path() is None:
        pytest.skip("no Chromium on this machine")
    from playwright.sync_api import sync_playwright

    content = (ROOT / "book" / "fit.md").read_text(encoding="utf-8").split("<script")[0]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=site.browser_path(), args=site.FLAGS)
        page = browser.new_page()
        page.set_content(content)
        for script in (fit.TABLE, fit.TABLE.with_name("fit.js")):
            page.add_script_tag(path=script)
        yield page
        browser.close()


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


def test_answer_is_the_tables_peak_and_the_largest_batch_below_the_card(page, table):
    set_to(page, "fit", recipe="samed", size=512, batch=12, card=24, fused=True)
    set_to(page, "fit", bf16=False, checkpointing=False, perLayer=False)
    wanted = {"recipe": "samed", "size": 512, "attention": "fused", "precision": "fp32"}
    wanted["checkpointing"] = False
    (row,) = [row for row in table["rows"] if wanted.items() <= row.items()]
    one, peak = row["peaks"]  # at batch 1 and 12
    largest = 12 + int((24 * GIB - peak) // ((peak - one) / 11))
    said = page.locator("#fit-answer p").first.inner_text()
    assert f"needs {peak / GIB:.2f} GiB at its peak: it fits into 24 GiB" in said
    assert f"The largest batch that does is {largest}." in said


def test_original_attention_is_tabled_without_other_savings(page):
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
