"""The table of claims: its rows are the answers, and its filters work by mouse and by keyboard."""

import json
import re
from collections import Counter
from html.parser import HTMLParser

import pytest

from medsaga_lib.claims.claim import Found, all_claims
from medsaga_lib.claims.page import STEP, claims_html
from medsaga_lib.claims.run import Answer, announced, find
from tools import site
from tools.claims import TARGET

FOUND = json.loads(TARGET.read_text(encoding="utf-8"))["found"]
ANSWERS = [Answer(find([name])[0], Found(*found), by) for name, (*found, by) in FOUND.items()]
PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Claims</title>
<meta name="viewport" content="width=device-width"></head><body>{}</body></html>"""
LARGEST = 700_000  # bytes, of 1.5 MB for a chapter


def shown_if(**wanted):
    """Return the ids of the answers with these properties, calculated without the page."""
    return [
        one.claim.id
        for one in ANSWERS
        if wanted.get("paper", one.claim.paper) == one.claim.paper
        and wanted.get("kind", one.claim.kind) == one.claim.kind
        and wanted.get("verdict", one.found.verdict) == one.found.verdict
    ]


def test_the_recorded_answers_are_those_of_all_claims_with_the_announced_verdicts():
    assert list(FOUND) == [claim.id for claim in all_claims()]
    assert {one.claim.id: one.found.verdict for one in ANSWERS} == announced()


def test_every_calculation_has_its_code_on_the_page_with_what_it_calls():
    codes = {one.claim.id: one.code for one in ANSWERS}
    assert Counter(code is None for code in codes.values())[False] == sum(
        one.by == "calculation" for one in ANSWERS
    )
    share = codes["ssam-04-at-256"]
    assert share.index("def ssam_04_at_256(") < share.index("def _share(") < share.index("_vit_b()")
    assert share.count("def _vit_b(") == 1


def test_the_page_is_small_and_needs_no_other_file():
    content = claims_html(ANSWERS)
    assert len(content.encode()) < LARGEST
    assert not re.search(r"<link|@import|<script[^>]*src=|<img|url\(", content)


def test_text_of_a_claim_is_not_markup():
    claim = all_claims()[0]
    content = claims_html([Answer(claim, Found("<b>1</b>", "reproduced", "a & b"), "calculation")])
    assert "&lt;b&gt;1&lt;/b&gt;" in content
    assert "a &amp; b" in content


class Ids(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        self.found += [value for name, value in attrs if name == "id"]


def test_ids_are_unique_and_every_row_can_be_linked():
    parser = Ids()
    parser.feed(claims_html(ANSWERS))
    assert max(Counter(parser.found).values()) == 1
    assert {f"claim-{name}" for name in FOUND} <= set(parser.found)


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    file = tmp_path_factory.mktemp("claims") / "page.html"
    file.write_text(PAGE.format(claims_html(ANSWERS)), encoding="utf-8")
    return file.as_uri()


@pytest.fixture
def page(browser, content):
    page = browser.new_page(viewport={"width": site.DESKTOP, "height": site.HEIGHT})
    page.goto(content)
    yield page
    page.close()


def rows(page):
    """Return the ids of the rows that a reader sees."""
    visible = page.locator("tbody tr:visible").evaluate_all("some => some.map(one => one.id)")
    return [name.removeprefix("claim-") for name in visible]


def status(page):
    return page.get_by_role("status").inner_text()


def test_filters_combine_and_can_be_taken_back(page):
    assert rows(page) == list(FOUND)[:STEP]
    page.get_by_role("combobox", name="Verdict").select_option("contradicted")
    wanted = shown_if(verdict="contradicted")
    assert rows(page) == wanted[:STEP]
    assert status(page).startswith(f"{len(wanted)} of {len(FOUND)} claims")
    page.get_by_role("combobox", name="Paper").select_option("reviews of S-SAM")
    page.get_by_role("combobox", name="Kind").select_option("protocol")
    wanted = shown_if(verdict="contradicted", paper="reviews of S-SAM", kind="protocol")
    assert rows(page) == wanted
    assert wanted
    page.get_by_role("button", name="Show all").click()
    page.wait_for_function(f"document.querySelectorAll('tbody tr:not([hidden])').length === {STEP}")
    assert status(page) == f"{len(FOUND)} of {len(FOUND)} claims, the first {STEP} shown"


def test_text_finds_all_words_in_any_order_but_not_in_code(page):
    field = page.get_by_role("searchbox", name="Text")
    field.fill("DAE-Former 61")
    assert {"medsaga-61-dae-model", "medsaga-61-dae-activations"} <= set(rows(page))
    field.fill("61 dae-former")
    assert "medsaga-61-dae-model" in rows(page)
    field.fill("reproduced_if")  # in the code of most checks
    assert rows(page) == []
    assert status(page) == f"0 of {len(FOUND)} claims"


def test_the_keyboard_alone_is_enough(page):
    names = []
    for _ in range(5):
        page.keyboard.press("Tab")
        names.append(page.evaluate("document.activeElement.name || document.activeElement.type"))
    assert names == ["paper", "kind", "verdict", "text", "reset"]
    for _ in range(3):
        page.keyboard.press("Shift+Tab")
    page.keyboard.press("ArrowDown")
    kind = page.get_by_role("combobox", name="Kind").input_value()
    assert rows(page) == shown_if(kind=kind)[:STEP]
    assert kind
    for _ in range(4):
        page.keyboard.press("Tab")
    detail = page.locator("tbody tr:visible details").first
    page.keyboard.press("Enter")
    assert detail.evaluate("one => one.open")
    assert page.evaluate("document.activeElement.tagName") == "SUMMARY"


def test_show_more_adds_rows_and_moves_the_focus_to_the_first_of_them(page):
    more = page.get_by_role("button", name="Show more")
    more.focus()
    page.keyboard.press("Enter")
    assert rows(page) == list(FOUND)[: 2 * STEP]
    row = page.evaluate("document.activeElement.closest('tr').id")
    assert row == f"claim-{list(FOUND)[STEP]}"


def test_the_code_of_a_check_and_its_command_are_one_click_away(page):
    page.get_by_role("searchbox", name="Text").fill("ssam-04-at-256")
    page.get_by_text("code of the check").and_(page.locator(":visible")).click()
    row = page.locator("#claim-ssam-04-at-256")
    assert "medsaga claims ssam-04-at-256" in row.inner_text()
    assert row.locator("pre").inner_text().startswith("@check\ndef ssam_04_at_256(")


def test_a_link_to_a_claim_shows_it_whatever_the_filters_say(page):
    page.get_by_role("combobox", name="Paper").select_option("summary of Cheap Lunch")
    page.evaluate("location.hash = '#claim-ssam-background-point'")
    row = page.locator("#claim-ssam-background-point")
    row.wait_for(state="visible")
    assert page.get_by_role("combobox", name="Paper").input_value() == ""


def test_every_control_has_a_name_and_the_table_its_roles_on_a_phone(page):
    page.set_viewport_size({"width": site.PHONE, "height": site.HEIGHT})
    for control in page.locator("select, input").all():
        assert control.evaluate("one => one.labels[0]?.textContent.trim()")
    summaries = page.locator("summary").evaluate_all("all => all.map(one => one.ariaLabel)")
    assert len(set(summaries)) == len(FOUND)
    table = page.get_by_role("table", name="Each claim with the published value")
    assert table.get_by_role("row").count() >= STEP
    assert table.get_by_role("rowheader").count() == STEP
    assert page.evaluate(site.EXCESS) <= 0
    page.locator("summary").first.click()
    assert page.evaluate(site.EXCESS) <= 0
    assert (
        page.locator("td[data-label=Ours]").first.evaluate(
            "one => getComputedStyle(one, '::before').content"
        )
        == '"Ours: "'
    )


def test_without_a_script_every_row_is_there(browser, content):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(content)
    assert page.locator("tbody tr:visible").count() == len(FOUND)
    assert not page.get_by_role("combobox", name="Verdict").is_visible()
    context.close()
