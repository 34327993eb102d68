"""A page of HTML becomes pages of paper, with everything unfolded and an outline."""

from pathlib import Path

import pytest
from pypdf import PdfReader

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


@pytest.mark.skipif(site.browser_path() is None, reason="no Chromium on this machine")
def test_the_contents_name_the_pages_and_the_bookmarks_the_headings(tmp_path):
    # As in the theme's page, a link goes to an empty place on the page before the heading.
    links = "".join(f'<a href="#at{n}">Chapter {n}</a><br>' for n in (1, 2, 3))
    part = '<i id="at{0}"></i><h1>Chapter <br>{0}</h1><p style="height: {1}cm">words</p>'
    chapters = "".join(part.format(number, height) for number, height in ((1, 40), (2, 1), (3, 70)))
    (tmp_path / "page.html").write_text(
        f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>Book</title>
        <style>h1 {{ break-before: page }}</style>
        <div id="jb-print-toc"><h2>Contents</h2>{links}</div>{chapters}
        <h3 style="display: none">Not printed</h3><p role="heading" aria-level="2">End</p></html>"""
    )
    pages = pdf.print_page(tmp_path / "page.html", tmp_path / "book.pdf")
    printed = PdfReader(tmp_path / "book.pdf")
    assert len(printed.pages) == pages
    titles = ["Contents", "Chapter 1", "Chapter 2", "Chapter 3", "End"]
    marks = pdf.bookmarks(printed, titles)
    numbers = [printed.get_destination_page_number(mark) + 1 for mark in marks]
    assert [mark.title for mark in marks] == titles
    assert numbers == [1, 2, 4, 5, pages]
    lines = [line.strip() for line in printed.pages[0].extract_text().splitlines()]
    assert lines[:4] == ["Contents", "Chapter 12", "Chapter 24", "Chapter 35"]
    with pytest.raises(BookError, match="4 headings have 5 bookmarks"):
        pdf.bookmarks(printed, titles[1:])


def test_a_missing_browser_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(pdf, "browser_path", lambda: None)
    with pytest.raises(BookError, match="apt install chromium"):
        pdf.make(tmp_path)


def test_the_single_page_finds_scripts_of_sphinx_and_of_the_pages(small_book):
    folder = small_book.root / "_build" / "singlehtml"
    (folder / "book").mkdir(parents=True)
    (folder / "book" / "index.html").write_text(
        '<i src="_static/a.js"><i src="../_static/b.js"><a href="book/index.html#there">'
    )
    page = pdf.single_page(small_book.root)
    assert page.parent == folder
    assert page.read_text() == '<i src="_static/a.js"><i src="_static/b.js"><a href="#there">'
