"""site.js in a browser: what goes on at the right fades, and what a phone does with wide things."""

from pathlib import Path

import matplotlib
import pytest

from medsaga_lib.display.style import STYLE

STYLED = matplotlib.rc_params_from_file(STYLE, use_default_template=False)
READABLE = 9  # pixels of a letter's size, our choice
STATIC = Path(__file__).parents[2] / "book" / "_static"
CELLS = "".join(f"<td>a wide cell {number}</td>" for number in range(12))
PICTURE = "data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw=="
NAMES = "".join(f"<th>the name {number}</th>" for number in range(5))
VALUES = "".join(f"<td>a longer value {number}</td>" for number in range(4))
LABEL = "cell => getComputedStyle(cell, '::before').content"
PAGE = f"""\
<!doctype html><html lang="en"><meta charset="utf-8"><title>Page</title>
<link rel="stylesheet" href="{(STATIC / "book.css").as_uri()}">
<script defer src="{(STATIC / "site.js").as_uri()}"></script>
<style>
td, code {{ white-space: nowrap }}
#formula {{ display: inline-block; width: 6px }}
</style>
<article class="bd-article">
<table id="wide" class="dataframe"><tbody><tr>{CELLS}</tr></tbody></table>
<table id="narrow" class="dataframe"><tbody><tr><td>1</td><td>0.88 ± 0.03</td></tr></tbody></table>
<table id="many" class="table"><thead><tr>{NAMES}</tr></thead>
<tbody><tr>{VALUES}<td></td></tr></tbody></table>
<p>Give <code id="option">--backbone</code> or
<code id="long">--set image_encoder.from_stage=3 --weights random</code>.</p>
<p>Here <span id="formula" class="math"><span>$P_t$ is a basis</span></span> is short.</p>
<div class="cell_output"><div class="stream">
<pre id="sentence">{"a printed sentence " * 4}</pre>
<pre id="printed">{"a long printed line " * 5}{"and one more sentence. " * 60}</pre>
<pre id="columns">SAMed        0.8{" " * 30}1</pre>
</div></div>
<div class="cell_output"><figure><img src="{PICTURE}" alt="A dot." style="width: 100%">
<figcaption>Figure</figcaption></figure></div></article></html>
"""


@pytest.fixture
def page(browser, tmp_path):
    """A page of 390 px with the script and the style of the site."""
    (tmp_path / "page.html").write_text(PAGE, encoding="utf-8")
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.goto((tmp_path / "page.html").as_uri())
    yield page
    page.close()


def test_what_goes_on_at_the_right_fades_until_it_is_scrolled_to_its_end(page):
    page.wait_for_selector("#wide.goes-on[tabindex='0']")
    assert page.locator("table.goes-on").count() == 1
    page.evaluate("document.querySelector('#wide').scrollLeft = 100")
    page.wait_for_timeout(100)
    assert page.locator("#wide.goes-on").count() == 1
    page.evaluate("document.querySelector('#wide').scrollLeft = 1e5")
    page.wait_for_selector("#wide:not(.goes-on)")


def test_long_output_fades_at_its_bottom_until_it_is_scrolled_to_its_end(page):
    page.wait_for_selector("#printed.goes-down[tabindex='0']")
    assert page.locator(".goes-down").count() == 1
    page.evaluate("document.querySelector('#printed').scrollTop = 1e5")
    page.wait_for_selector("#printed:not(.goes-down)")


def test_a_written_table_of_many_columns_is_a_list_on_a_phone(page):
    many = page.locator("#many")
    assert many.locator("td").nth(1).evaluate(LABEL) == '"the name 1: "'
    first, second = (many.locator("td").nth(n).bounding_box() for n in (0, 1))
    assert first["y"] < second["y"]
    assert not many.locator("td").nth(4).is_visible()  # an empty cell
    assert page.get_by_role("columnheader", name="the name 4").count() == 1
    page.set_viewport_size({"width": 1280, "height": 800})
    first, second = (many.locator("td").nth(n).bounding_box() for n in (0, 1))
    assert first["y"] == second["y"]
    assert many.locator("td").nth(1).evaluate(LABEL) == "none"


def test_the_letters_of_a_figure_are_readable_on_a_phone_and_a_button_shows_it_whole(page):
    wide, _ = STYLED["figure.figsize"]
    points = min(STYLED[name] for name in ("legend.fontsize", "xtick.labelsize", "ytick.labelsize"))
    width = "document.querySelector('.picture img').getBoundingClientRect().width"
    assert page.evaluate(width) * points / (72 * wide) >= READABLE
    page.wait_for_selector(".picture.goes-on[tabindex='0']")
    assert page.evaluate("document.documentElement.scrollWidth") == 390  # it scrolls by itself
    page.get_by_role("button", name="Fit to the page", pressed=True).click()
    assert page.evaluate(width) <= 390
    page.wait_for_selector(".picture:not(.goes-on, [tabindex])")
    button = page.get_by_role("button", name="Enlarge", pressed=False)
    button.click()
    assert page.evaluate(width) > 390
    page.set_viewport_size({"width": 1280, "height": 800})
    assert page.locator(".enlarge:visible").count() == 0


def test_short_options_are_not_broken(page):
    assert page.locator("code.short").evaluate_all("all => all.map(one => one.id)") == ["option"]


def test_a_formula_within_a_line_never_fades(page):
    page.wait_for_selector("#wide.goes-on")  # the script has looked at everything
    formula = page.locator("#formula, #formula *")
    assert formula.evaluate_all("all => all.map(one => one.className)") == ["math", ""]
    assert page.locator("#formula").get_attribute("tabindex") is None


def test_printed_sentences_wrap_on_a_phone_and_columns_do_not(page):
    wrapped = page.locator("pre.wraps-on-phone").evaluate_all("all => all.map(one => one.id)")
    assert wrapped == ["sentence"]
    assert page.evaluate("document.querySelector('#sentence').scrollWidth") <= 390


def test_a_first_column_of_short_names_keeps_its_width(page):
    brief = page.locator("table.brief-names").evaluate_all("all => all.map(one => one.id)")
    assert brief == ["narrow"]
    assert page.locator("td.one-line").all_text_contents() == ["0.88 ± 0.03"]


def test_a_filled_mask_lets_the_image_shine_through(browser):
    page = browser.new_page()
    page.set_content("<canvas width=5 height=5></canvas>")
    page.add_script_tag(path=STATIC / "shared.js")
    inner = """ground => {
        const context = document.querySelector("canvas").getContext("2d");
        context.clearRect(0, 0, 5, 5);
        if (ground) { context.fillStyle = ground; context.fillRect(0, 0, 5, 5); }
        Shared.paint(context, new Uint8Array(25).fill(1), 5, 5, [0, 114, 178]);
        return [...context.getImageData(2, 2, 1, 1).data];
    }"""
    veil = 80 / 255
    expected = [255 - veil * (255 - one) for one in (0, 114, 178)]
    assert page.evaluate(inner, "white") == pytest.approx([*expected, 255], abs=1)
    assert page.evaluate(inner, "")[3] == 80  # on a canvas of its own, above the image
    page.close()
