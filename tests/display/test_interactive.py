"""Figures that readers change: the browser's sentences have the numbers of the cell."""

from html.parser import HTMLParser
from pathlib import Path

import pytest

from medsaga_lib import display
from medsaga_lib.display.page import Interactive
from tools import site

STATIC = Path(__file__).parents[2] / "book" / "_static"


class Parts(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)


def test_a_notebook_without_the_site_shows_the_caption_only():
    made = Interactive("seeds", {"rows": ["</script><b>"]}, "Choose\n  the <seeds>.")
    bundle = made._repr_mimebundle_()
    assert bundle["text/plain"] == repr(made) == "Choose the <seeds>."
    parts = Parts()
    parts.feed(bundle["text/html"])
    assert parts.tags == ["figure", "figcaption", "script"]  # what is stored opens no tag


def test_interactive_displays_in_a_notebook(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    display.interactive("spectrum", {}, "caption")
    assert [type(one) for one in shown] == [Interactive]


@pytest.fixture(scope="module")
def show():
    """A function that opens figures in a browser, at a phone's width."""
    if site.browser_path() is None:
        pytest.skip("no Chromium on this machine")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=site.browser_path(), args=site.FLAGS)

        def opened(kind, numbers):
            page = browser.new_page(viewport={"width": site.PHONE, "height": 800})
            page.set_content(Interactive(kind, numbers, "caption")._repr_mimebundle_()["text/html"])
            for script in ("shared.js", "figures.js"):
                page.add_script_tag(path=STATIC / script)
            return page

        yield opened
        browser.close()


def test_spectrum_tells_the_energy_and_the_bytes_of_a_rank(show):
    m, n = 12, 20
    energy = [min(1, 0.3 + 0.1 * r) for r in range(m)]
    page = show("spectrum", {"shape": [m, n], "curves": {"gradient": energy}})
    said = page.locator("[role=status]")
    assert said.inner_text().startswith("Rank 1 of 12: gradient 30.0 % of the energy.")
    page.locator("input").focus()
    page.keyboard.press("ArrowRight")
    text = said.inner_text()
    assert text.startswith("Rank 2 of 12: gradient 40.0 %")
    assert f"{100 * (2 * 2 * n + 2 * m) / (2 * m * n):.1f} % of Adam's" in text
    page.keyboard.press("End")
    assert "100.0 % of Adam's" in said.inner_text()
    assert "Adam's are kept" in said.inner_text()


def test_seeds_tell_the_means_of_the_chosen_seeds(show):
    dice = {("a", 8, 0): 0.5, ("a", 8, 1): 0.7, ("a", 32, 0): 0.8, ("a", 32, 1): 0.9}
    dice |= {("b", 8, 0): 0.65, ("b", 8, 1): 0.65, ("b", 32, 0): 0.7, ("b", 32, 1): 0.7}
    rows = [{"method": m, "shots": n, "seed": s, "dice": d} for (m, n, s), d in dice.items()]
    page = show("seeds", {"rows": rows, "least": 0.4})
    said = page.locator("[role=status]")
    assert said.inner_text() == (
        "Mean over seeds 0, 1. 8 labels: b 0.650, a 0.600. 32 labels: a 0.850, b 0.700."
    )
    page.get_by_label("0").uncheck()
    assert said.inner_text() == "Seed 1. 8 labels: a 0.700, b 0.650. 32 labels: a 0.900, b 0.700."
    page.get_by_label("1", exact=True).uncheck()  # the last one: the first comes back
    assert said.inner_text().startswith("Seed 0. 8 labels: b 0.650")
    assert page.locator("svg").bounding_box()["width"] <= site.PHONE
