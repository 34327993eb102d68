"""Build the book, as `make book`: execute the chapters, stage them and render `_build/html`."""

import argparse
import html
import importlib.util
import re
import shutil
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tools import live, numbers, pairs
from tools.book import BUILD, BookError, copy, pages, settings, write
from tools.execute import STAGE, execute
from tools.stage import CONTACT_SHEET, stage

HTML = BUILD / "html"
JUPYTER_BOOK = "from jupyter_book.cli.main import main; main()"  # it has no __main__
# The file of MathJax that needs no other file: TeX to SVG, all extensions, no web fonts.
MATHJAX = "tex-svg-full.js"
SITEMAP = """\
<?xml version="1.0" encoding="UTF-8"?>
<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">
{urls}</urlset>
"""


def build(root: Path, profile: str) -> None:
    """Execute, stage and render the book under `root`.

    Raises:
        BookError: a pair differs, a chapter fails, jupyter-book warns, an image has no alt text,
            or a link leads nowhere.
    """
    if problems := pairs.check(root):
        raise BookError("\n".join(problems))
    stage(root, execute(root, profile))
    render(root)
    write_sitemap(root)
    parts = read_pages(root / HTML)
    if problems := [*images_without_alt(root / HTML, parts), *dead_links(root / HTML, parts)]:
        raise BookError("\n".join(problems))


def render(root: Path, staged: Path = STAGE, output: Path = Path(), builder: str = "html") -> None:
    """Run jupyter-book on a staged tree; every warning is an error.

    output: the folder, relative to `root`, in which the site becomes `_build/BUILDER`.
    """
    site = root / output / BUILD / builder
    bring_static_files(root, site / "_static")
    if live.PAGE in pages(root) and (why := live.bring(root, site / "_static" / "live")):
        print(f"book/live.md shows masks without the network: {why}")
    command = [sys.executable, "-c", JUPYTER_BOOK, "build", str(root / staged)]
    options = ["--path-output", str(root / output), "--builder", builder]
    answer = subprocess.run(
        [*command, *options, "-n", "-W", "--keep-going", "-q"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode:
        # Sphinx warns about a page only when it reads it, so make it read all pages again
        shutil.rmtree(root / output / BUILD / ".doctrees", ignore_errors=True)
        said = re.sub(r"\x1b\[[0-9;]*m", "", answer.stderr.strip() or answer.stdout)
        raise BookError(f"jupyter-book warns, and every warning is an error:\n{said}")


def bring_static_files(root: Path, folder: Path) -> None:
    """Copy our style, which Sphinx skips if no page changed, and MathJax from its package."""
    shutil.copytree(root / "book" / "_static", folder, dirs_exist_ok=True)
    bring_mathjax(folder)


def bring_mathjax(folder: Path) -> None:
    """Copy MathJax from its package to `mathjax` in a folder."""
    source = package_folder("sphinx-mathjax-offline") / "static" / "mathjax" / MATHJAX
    copy(source, folder / "mathjax" / MATHJAX)


def package_folder(name: str) -> Path:
    """Folder of an installed package that brings files for the browser.

    Raises:
        BookError: the package is not installed.
    """
    package = importlib.util.find_spec(name)
    if package is None or package.origin is None:
        raise BookError(f"the package {name} is missing; remove .venv and run make book.")
    return Path(package.origin).parent


class Parts(HTMLParser):
    """A parser that collects images without alt text of their own, links, and their targets."""

    def __init__(self) -> None:
        super().__init__()
        self.bare: list[str] = []
        self.links: set[str] = set()
        self.names: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect an image whose alt text is empty, or is the address that Sphinx fills in."""
        given = dict(attrs)
        source, alt = given.get("src") or "", (given.get("alt") or "").strip()
        if tag == "img" and (not alt or alt.endswith(Path(source).name)):
            self.bare.append(source[:80])
        self.names |= {given[key] or "" for key in ("id", "name") if key in given}
        self.links |= {link for link in (given.get("href"), given.get("src")) if link}


def read_pages(folder: Path) -> dict[Path, Parts]:
    """Return the parts of each page of the site; templates of the theme are no pages."""
    found = {}
    for page in sorted(set(folder.rglob("*.html")) - set((folder / "_static").rglob("*.html"))):
        found[page] = Parts()
        found[page].feed(page.read_text(encoding="utf-8"))
    return found


def images_without_alt(folder: Path, pages: dict[Path, Parts]) -> list[str]:
    """Return a sentence for each image on the site without alt text."""
    return [
        f"{page.relative_to(folder)}: the image {source} has no alt text; "
        "give it one: display.show(fig, alt=...) or ![what it shows](...)"
        for page, parts in pages.items()
        for source in parts.bare
    ]


def dead_links(folder: Path, pages: dict[Path, Parts]) -> list[str]:
    """Return a sentence for each link of a page into the site that leads nowhere."""
    found = []
    for page, parts in pages.items():
        for link in sorted(parts.links):
            place = urlsplit(link)
            if place.scheme or place.netloc:
                continue
            target = (page.parent / unquote(place.path)).resolve() if place.path else page
            names = {place.fragment, unquote(place.fragment)} if place.fragment else set()
            missing = names and target in pages and not names & pages[target].names
            if not target.exists() or missing:
                found.append(f"{page.relative_to(folder)}: the link {link} leads nowhere")
    return found


def write_sitemap(root: Path) -> None:
    """Write the list of pages that search engines read."""
    site = settings(root).get("html", {}).get("baseurl", "")
    names = [Path(page).with_suffix(".html").as_posix() for page in pages(root)]
    urls = "".join(f"  <url><loc>{html.escape(site + name)}</loc></url>\n" for name in names)
    write(root / HTML / "sitemap.xml", SITEMAP.format(urls=urls))


def main() -> None:
    """Build the book in the current folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", default="quick")
    root, start = Path.cwd(), time.monotonic()
    try:
        build(root, parser.parse_args().profile)
    except BookError as error:
        raise SystemExit(f"make book stopped: {error}") from error
    index = root / HTML / "index.html"
    print(f"the book is built, in {time.monotonic() - start:.0f} s; open it with: make serve")
    print(f"or open this file in a browser: {index}")
    print(f"all figures on one page: {root / CONTACT_SHEET}")
    for line in numbers.report(root):
        print(f"no cell prints a number of the prose: {line}")


if __name__ == "__main__":
    main()
