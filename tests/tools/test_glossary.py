"""The glossary is in order, its anchors are Sphinx's, and chapters show it as tips."""

import json
import re
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright
from sphinx.util.nodes import _make_id

from tools import book, glossary, site

ROOT = Path(__file__).parents[2]
TERMS = glossary.terms(ROOT)
STATIC = ROOT / "book" / "_static"

CHAPTER = """\
<!doctype html><html><head><meta charset="utf-8"><style>{style} body {{ margin: 0 }}</style>
<meta name="viewport" content="width=device-width"></head>
<body><main class="bd-article"><h1>LoRA and SAM</h1>
<p>S-SAM is here, <code>SAM</code> is code, and <a href="#">LoRA</a> is a link. Phantoms
come first, and in this case SAM is a term.</p>
<p style="text-align: right">SAM again, then LoRA, and LoRA.</p>
<table><tr><td>GaLore</td></tr></table>
</main><script>{shared}</script><script>{terms}</script><script>{glossary}</script></body></html>
"""


def test_every_term_has_one_short_entry_that_names_its_page():
    names = [name for term in TERMS for name in term.names]
    assert len(names) == len(set(names)) > 60
    assert set(names) >= glossary.AMBIGUOUS
    entries = glossary.LIST.search((ROOT / glossary.PAGE).read_text(encoding="utf-8"))[1]
    for term in TERMS:
        assert len(term.text.split()) < 60, term.names
        assert term.text.endswith("."), term.names
    for entry in entries.strip().split("\n\n"):
        assert re.search(r"\]\((\.\./notebooks/|weights\.md)", entry), entry
    first = [term.names[0].lower() for term in TERMS]
    assert first == sorted(first)


def test_anchors_are_those_of_sphinx():
    for term in TERMS:
        assert term.id == _make_id(f"term-{term.names[0]}")


def test_the_script_holds_the_terms_without_ambiguous_words():
    text = glossary.script(ROOT).removeprefix("const TERMS = ").rstrip(";\n")
    entries = {name: entry for entry in json.loads(text) for name in entry["names"]}
    assert "optimizer states" in entries
    assert not glossary.AMBIGUOUS & entries.keys()
    assert "](" not in text


def test_linked_pages_exist():
    pages = set(book.pages(ROOT))
    for page in (glossary.PAGE, Path("book/notation.md")):
        for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text(encoding="utf-8")):
            path = (ROOT / page.parent / target).resolve().relative_to(ROOT).as_posix()
            assert path in pages or path.removesuffix(".md") in pages, f"{page}: {target}"


@pytest.fixture
def page(tmp_path):
    """A chapter of two paragraphs in a browser as wide as a phone."""
    names = ("shared.js", "glossary.js", "book.css")
    shared, tips, style = [(STATIC / name).read_text(encoding="utf-8") for name in names]
    path = tmp_path / "notebooks" / "01_small.html"
    for folder in ("notebooks", "book"):
        (tmp_path / folder).mkdir()
    (tmp_path / "book" / "glossary.html").touch()
    terms = glossary.script(ROOT)
    content = CHAPTER.format(style=style, terms=terms, shared=shared, glossary=tips)
    path.write_text(content, encoding="utf-8")
    if site.browser_path() is None:
        pytest.skip("no Chromium on this machine")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=site.browser_path(), args=site.FLAGS)
        context = browser.new_context(viewport={"width": 390, "height": 600}, has_touch=True)
        opened = context.new_page()
        opened.goto(path.as_uri())
        yield opened
        browser.close()


def test_a_tip_opens_by_pointer_keyboard_and_touch(page):
    links = page.locator("a.term")
    assert links.all_text_contents() == ["S-SAM", "Phantoms", "SAM", "LoRA"]
    sam, lora = links.nth(2), links.nth(3)
    text = next(term.text for term in TERMS if term.names == ["LoRA"])
    tip = page.get_by_role("tooltip")
    assert tip.count() == 0

    lora.hover()
    assert tip.all_text_contents() == [text]
    assert page.evaluate(site.EXCESS) == 0  # the tip at the right edge does not widen the page
    page.mouse.move(0, 0)
    assert tip.count() == 0

    for _ in range(5):  # S-SAM, the other link, phantoms, SAM, LoRA
        page.keyboard.press("Tab")
    assert tip.all_text_contents() == [text]
    assert lora.get_attribute("aria-describedby") == page.locator(".term-tip").nth(3).get_attribute(
        "id"
    )
    page.keyboard.press("Escape")
    assert tip.count() == 0

    before = page.url
    sam.tap()
    assert page.url == before
    assert "Segment Anything Model" in tip.all_text_contents()[0]
    page.locator("h1").tap()
    assert tip.count() == 0
    lora.tap()
    assert tip.all_text_contents() == [text]
    lora.tap()
    page.wait_for_url("**/book/glossary.html#term-LoRA")
