"""The check of the site finds faulty pages, and no fault in the pages of the book."""

import pathlib

import pytest

from tools import site
from tools.build import HTML

BUILT = pathlib.Path(__file__).parents[2] / HTML

pytestmark = pytest.mark.skipif(site.browser_path() is None, reason="no Chromium on this machine")

PAGE = """\
<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Title</title>
<meta name="viewport" content="width=device-width"><link rel="icon" href="data:,">
</head><body><main class="bd-article"><h1>Title</h1>{}</main></body></html>
"""
SEARCH = PAGE.format('<ul id="search-results"><li><a href="a.html">found</a></li></ul>')


# A page's content, and what is to be said about it; None where nothing is.
FAULTS = {
    "fine": ("<p>fine</p>", None),
    "elsewhere": ("<script src='https://example.org/a.js'></script>", "from another machine"),
    "console": ("<script>console.error('broken')</script>", "console: broken"),
    "script": ("<script>throw new Error('thrown')</script>", "script error: thrown"),
    "image": ("<img src='gone.png' alt='gone'>", "gone.png"),
    "wide": ("<div style='width: 500px'>wide</div>", "px too wide at 390 px: div"),
    "pale": ("<p style='color: #aaaaaa; background: white'>pale</p>", "theme, color-contrast: "),
    "ground": ("<p style='background: #222222'>black</p>", "theme, color-contrast: "),
    "shown": ("<p hidden>fine</p><p style='color: #bbbbbb'>pale</p>", "theme, color-contrast: "),
    "unnamed": ("<button></button>", "light theme, button-name: "),
    "raw": ("<span class='math'>\\(x\\)</span>", "its formulas are not typeset"),
    "unknown": (
        "<span class='math'><mjx-container><mjx-merror>?</mjx-merror></mjx-container></span>",
        "MathJax cannot typeset a formula",
    ),
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A site of an entry, a search page and `book/index.html`, all in order."""
    monkeypatch.setattr(site, "SECONDS", 2)
    (tmp_path / "book").mkdir()
    (tmp_path / "index.html").write_text('<meta http-equiv="Refresh" content="0; url=book/a.html">')
    (tmp_path / "search.html").write_text(SEARCH)
    (tmp_path / "book" / "a.html").write_text(PAGE.format("fine"))
    return tmp_path


def test_each_kind_of_fault_is_found_as_a_file_and_from_a_server(folder):
    for name, (content, _) in FAULTS.items():
        (folder / "book" / f"{name}.html").write_text(PAGE.format(content))
    problems = site.look(folder, ["word"])
    for name, (_, said) in FAULTS.items():
        mine = [problem for problem in problems if f"/{name}.html: " in problem]
        found = {problem.split(":")[0] for problem in mine if said and said in problem}
        everywhere = {"http"} if said and "theme" in said else {"file", "http"}
        assert found == (everywhere if said else set()), mine
        assert said or not mine
    assert not any("search.html" in problem or "/index.html" in problem for problem in problems)


def test_a_search_that_finds_nothing_and_an_entry_that_leads_nowhere_are_found(folder):
    (folder / "search.html").write_text(PAGE.format("<ul id='search-results'></ul>"))
    (folder / "index.html").write_text("<p>nothing</p>")
    found = site.look(folder, ["word"])
    assert sum("search.html?q=word: '#search-results" in problem for problem in found) == 2
    assert sum("/index.html: '.bd-article h1' does not appear" in line for line in found) == 2


def test_large_chapters_are_found(tmp_path):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "_images").mkdir()
    (tmp_path / "_images" / "one.png").write_bytes(bytes(site.CHAPTER_BYTES))
    page = '<img src="../_images/one.png"><img src="../_images/one.png">'
    (tmp_path / "notebooks" / "large.html").write_text(page)
    (tmp_path / "notebooks" / "small.html").write_text("x" * site.CHAPTER_BYTES)
    assert list(site.too_large(tmp_path)) == [
        "notebooks/large.html: has 1.50 MB; the limit is 1.5 MB"
    ]


@pytest.mark.slow
def test_the_book_is_in_order():
    if not (BUILT / "index.html").exists():
        pytest.skip("the book is not built: run make book first")
    assert site.look(BUILT, site.SEARCHES) == []
