"""Print the whole book into one PDF, as `make pdf`: Chromium prints it as a single page of HTML."""

import argparse
import re
from pathlib import Path

from playwright.sync_api import sync_playwright

from tools import book, build
from tools.book import BUILD, BookError
from tools.execute import STAGE
from tools.site import FLAGS, MATH, TYPESET, browser_path

PDF = BUILD / "pdf" / "book.pdf"
MINUTES = 10  # a long page needs time to be typeset and printed
SCALE = 0.8  # 16 CSS pixels become 9.6 points; a line of code of 80 columns fits
FOOTER = (
    '<div style="width: 100%; text-align: center; font: 8px sans-serif">'
    '<span class="pageNumber"></span></div>'
)
MARGIN, SIDE_MARGIN = "16mm", "15mm"
# A printed page cannot be unfolded.
UNFOLD = "() => document.querySelectorAll('details').forEach(one => { one.open = true; })"


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
    """Return the page with all chapters, moved to where Sphinx's own links find scripts and style.

    Sphinx writes it into the folder of the first page, with links as from the folder above.
    """
    folder = root / BUILD / "singlehtml"
    text = (folder / f"{book.pages(root)[0]}.html").read_text(encoding="utf-8")
    page = folder / "book.html"
    page.write_text(text.replace('"../_static/', '"_static/'), encoding="utf-8")
    return page


def print_page(source: Path, target: Path) -> int:
    """Print a page of HTML; return the number of printed pages."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path(), args=FLAGS)
        page = browser.new_page(color_scheme="light")
        page.set_default_timeout(MINUTES * 60_000)
        page.goto(source.resolve().as_uri(), wait_until="load")
        if page.locator(MATH).count():
            page.wait_for_function(TYPESET)
        page.evaluate(UNFOLD)
        written = page.pdf(
            format="A4",
            margin={"top": MARGIN, "bottom": MARGIN, "left": SIDE_MARGIN, "right": SIDE_MARGIN},
            scale=SCALE,
            display_header_footer=True,
            header_template="<span></span>",
            footer_template=FOOTER,
            print_background=True,
            outline=True,
            tagged=True,
        )
        browser.close()
    target.write_bytes(written)
    return len(re.findall(rb"/Type /Page\b", written))


def main() -> None:
    """Print the book in the current folder."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    try:
        print(make(Path.cwd()))
    except BookError as error:
        raise SystemExit(f"make pdf stopped: {error}") from error


if __name__ == "__main__":
    main()
