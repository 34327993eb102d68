"""A page of HTML becomes pages of paper, with everything unfolded and an outline."""

from pathlib import Path

import pytest

from tools import pdf, site
from tools.book import BookError

PAGE = """\
<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Book</title>
<style>h1 { break-before: page } div { height: 20cm }</style></head><body>
<h1>One</h1><h1>Two</h1><details><summary>Answer</summary><div>1</div><div>2</div></details>
</body></html>
"""


@pytest.mark.skipif(site.browser_path() is None, reason="no Chromium on this machine")
def test_details_are_printed_and_headings_become_an_outline(tmp_path):
    (tmp_path / "page.html").write_text(PAGE)
    pages = pdf.print_page(tmp_path / "page.html", tmp_path / "out" / "book.pdf")
    written = (tmp_path / "out" / "book.pdf").read_bytes()
    assert written.startswith(b"%PDF-")
    assert pages == 3  # one for each heading, and one more because the answer has 40 cm
    assert b"/Outlines" in written


@pytest.mark.skipif(site.browser_path() is None, reason="no Chromium on this machine")
def test_a_table_goes_on_on_the_next_page(tmp_path):
    style = Path(__file__).parents[2] / "book" / "_static" / "book.css"
    theme = ".bd-main .bd-content table { break-inside: avoid; margin: 0 }"
    table = "<tr><td>one</td></tr>" * 30
    # 15, 30 and 12 cm; a page of A4 has 26.5 cm, and 33 at the scale of the PDF
    (tmp_path / "page.html").write_text(
        f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>Book</title>
        <link rel="stylesheet" href="{style.as_uri()}">
        <style>{theme} td {{ box-sizing: border-box; height: 1cm }}</style>
        <main class="bd-main"><div class="bd-content bd-article"><div style="height: 15cm"></div>
        <div class="pst-scrollable-table-container"><table class="table">{table}</table></div>
        <div style="height: 12cm; break-inside: avoid"></div></div></main></html>"""
    )
    assert pdf.print_page(tmp_path / "page.html", tmp_path / "book.pdf") == 2


def test_a_missing_browser_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(pdf, "browser_path", lambda: None)
    with pytest.raises(BookError, match="apt install chromium"):
        pdf.make(tmp_path)


def test_the_single_page_finds_scripts_of_sphinx_and_of_the_pages(small_book):
    folder = small_book.root / "_build" / "singlehtml"
    (folder / "book").mkdir(parents=True)
    (folder / "book" / "index.html").write_text('<i src="_static/a.js"><i src="../_static/b.js">')
    page = pdf.single_page(small_book.root)
    assert page.parent == folder
    assert page.read_text() == '<i src="_static/a.js"><i src="_static/b.js">'
