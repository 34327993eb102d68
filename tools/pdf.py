"""Print the whole book into one PDF, as `make pdf`: Chromium prints it as a single page of HTML."""

import argparse
import io
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright
from pypdf import PdfReader, PdfWriter
from pypdf.generic import Destination, NameObject, TextStringObject

from tools import book, build
from tools.book import BUILD, BookError
from tools.execute import STAGE
from tools.site import FLAGS, MATH, TYPESET, browser_path

PDF = BUILD / "pdf" / "book.pdf"
logging.getLogger("pypdf").setLevel(logging.ERROR)  # Chromium's PDFs count fewer objects
MINUTES = 10  # a long page needs time to be typeset and printed
SCALE = 0.8  # 16 CSS pixels become 9.6 points; a line of code of 80 columns fits
FOOTER = (
    '<div style="width: 100%; text-align: center; font: 8px sans-serif">'
    '<span class="pageNumber"></span></div>'
)
MARGIN, SIDE_MARGIN = "16mm", "15mm"
# A printed page cannot be unfolded.
UNFOLD = "() => document.querySelectorAll('details').forEach(one => { one.open = true; })"
HEADINGS = """[...document.querySelectorAll('h1, h2, h3, h4, h5, h6, [role=heading]')]
    .filter(one => one.checkVisibility())"""
# The theme prints links to all pages first, without numbers.
NUMBER = f"""pages => {{
    const headings = {HEADINGS};
    for (const link of document.querySelectorAll('#jb-print-toc a[href^="#"]')) {{
        const place = document.getElementById(decodeURIComponent(link.hash.slice(1)));
        const after = Node.DOCUMENT_POSITION_FOLLOWING;
        const follows = one => place.compareDocumentPosition(one) & after;
        const number = document.createElement('span');
        number.className = 'page-number';
        number.textContent = pages[headings.findIndex(follows)];
        link.append(number);
    }}
}}"""
WORDS = f"{HEADINGS}.map(one => one.innerText)"


def make(root: Path) -> str:
    """Make `_build/pdf/book.pdf`; return a line that says what and where it is.

    Raises:
        BookError: the book is not built, Chromium is missing, or jupyter-book warns.
    """
    if browser_path() is None:
        raise BookError(
            "Chromium, which prints the book, is not installed; "
            "on Debian or Ubuntu: apt install chromium."
        )
    if not (root / STAGE / "_toc.yml").exists():
        raise BookError("the book is not built yet; run: make book.")
    build.render(root, builder="singlehtml")
    pages = print_page(single_page(root), root / PDF)
    return f"pdf: {PDF}, {pages} pages, {book.megabytes(root / PDF)}"


def single_page(root: Path) -> Path:
    """Return the page with all chapters, whose links find scripts, style and sections.

    Sphinx writes it into the folder of the first page, with links as from the folder above. A link
    to a section of another chapter names the first page, which is not where this page lies.
    """
    folder = root / BUILD / "singlehtml"
    first = f"{book.pages(root)[0]}.html"
    text = (folder / first).read_text(encoding="utf-8")
    page = folder / "book.html"
    text = text.replace('"../_static/', '"_static/').replace(f'href="{first}#', 'href="#')
    page.write_text(text, encoding="utf-8")
    return page


def print_page(source: Path, target: Path) -> int:
    """Print a page of HTML, its contents with page numbers; return the number of printed pages.

    Raises:
        BookError: a heading has no bookmark.
    """
    how: dict[str, Any] = {
        "format": "A4",
        "margin": {"top": MARGIN, "bottom": MARGIN, "left": SIDE_MARGIN, "right": SIDE_MARGIN},
        "scale": SCALE,
        "display_header_footer": True,
        "header_template": "<span></span>",
        "footer_template": FOOTER,
        "print_background": True,
        "outline": True,
        "tagged": True,
    }
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path(), args=FLAGS)
        page = browser.new_page(color_scheme="light")
        page.set_default_timeout(MINUTES * 60_000)
        page.goto(source.resolve().as_uri(), wait_until="load")
        if page.locator(MATH).count():
            page.wait_for_function(TYPESET)
        page.evaluate(UNFOLD)
        page.emulate_media(media="print")
        headings = page.evaluate(WORDS)
        first = PdfReader(io.BytesIO(page.pdf(**how)))
        places = [first.get_destination_page_number(one) for one in bookmarks(first, headings)]
        page.evaluate(NUMBER, [(place or 0) + 1 for place in places])
        written = PdfWriter(clone_from=io.BytesIO(page.pdf(**how)))
        browser.close()
    for words, bookmark in zip(headings, bookmarks(written, headings), strict=True):
        # Chromium 150 repeats the words of some headings that it moves to the next page.
        assert bookmark.node is not None  # it comes from the outline
        bookmark.node[NameObject("/Title")] = TextStringObject(" ".join(words.split()))
    target.parent.mkdir(parents=True, exist_ok=True)
    written.write(target)
    return len(written.pages)


def bookmarks(printed: PdfReader | PdfWriter, headings: list[str]) -> list[Destination]:
    """Return the bookmarks of a PDF, one for each heading; raise BookError if one is missing."""
    found = list(_flat(printed.outline))
    if len(found) != len(headings):
        raise BookError(f"{len(headings)} headings have {len(found)} bookmarks in the PDF.")
    return found


def _flat(outline: list) -> Iterator[Destination]:
    for one in outline:
        yield from _flat(one) if isinstance(one, list) else [one]


def main() -> None:
    """Print the book in the current folder."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    try:
        print(make(Path.cwd()))
    except BookError as error:
        raise SystemExit(f"make pdf stopped: {error}") from error


if __name__ == "__main__":
    main()
