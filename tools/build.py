"""Build the book, as `make book`: execute the chapters, stage them and render `_build/html`."""

import argparse
import importlib.util
import re
import shutil
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

from tools import live, pairs
from tools.book import BUILD, BookError, pages
from tools.execute import STAGE, execute
from tools.stage import stage

HTML = BUILD / "html"
JUPYTER_BOOK = "from jupyter_book.cli.main import main; main()"  # it has no __main__
# The file of MathJax that needs no other file: TeX to SVG, all extensions, no web fonts.
MATHJAX = "tex-svg-full.js"


def build(root: Path, profile: str) -> None:
    """Execute, stage and render the book under `root`.

    Raises:
        BookError: a pair differs, a chapter fails, jupyter-book warns, or an image has no alt text.
    """
    if problems := pairs.check(root):
        raise BookError("\n".join(problems))
    stage(root, execute(root, profile))
    render(root)
    if missing := images_without_alt(root / HTML):
        raise BookError("\n".join(missing))


def render(root: Path) -> None:
    """Run jupyter-book on the staged tree; every warning is an error."""
    bring_static_files(root)
    if live.PAGE in pages(root) and (why := live.bring(root, root / HTML / "_static" / "live")):
        print(f"book/live.md shows masks without the network: {why}")
    command = [sys.executable, "-c", JUPYTER_BOOK, "build", str(root / STAGE)]
    options = ["--path-output", str(root), "-n", "-W", "--keep-going", "-q"]
    answer = subprocess.run(
        [*command, *options], cwd=root, capture_output=True, text=True, check=False
    )
    if answer.returncode:
        # Sphinx warns about a page only when it reads it, so make it read all pages again
        shutil.rmtree(root / BUILD / ".doctrees", ignore_errors=True)
        said = re.sub(r"\x1b\[[0-9;]*m", "", answer.stderr.strip() or answer.stdout)
        raise BookError(f"jupyter-book warns, and every warning is an error:\n{said}")


def bring_static_files(root: Path) -> None:
    """Copy our style, which Sphinx skips if no page changed, and MathJax from its package."""
    folder = root / HTML / "_static"
    shutil.copytree(root / "book" / "_static", folder, dirs_exist_ok=True)
    package = importlib.util.find_spec("sphinx-mathjax-offline")
    if package is None or package.origin is None:
        raise BookError(
            "the package sphinx-mathjax-offline is missing; remove .venv and run make book."
        )
    (folder / "mathjax").mkdir(exist_ok=True)
    source = Path(package.origin).parent / "static" / "mathjax" / MATHJAX
    shutil.copy2(source, folder / "mathjax")


class Images(HTMLParser):
    """A parser that collects the images of a page without alt text of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.bare: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect an image whose alt text is empty, or is the address that Sphinx fills in."""
        given = dict(attrs)
        source, alt = given.get("src") or "", (given.get("alt") or "").strip()
        if tag == "img" and (not alt or alt.endswith(Path(source).name)):
            self.bare.append(source[:80])


def images_without_alt(folder: Path) -> list[str]:
    """Return a sentence for each image on the site without alt text."""
    found = []
    for page in sorted(folder.rglob("*.html")):
        images = Images()
        images.feed(page.read_text(encoding="utf-8"))
        found += [
            f"{page.relative_to(folder)}: the image {source} has no alt text; "
            "give it one: display.show(fig, alt=...) or ![what it shows](...)"
            for source in images.bare
        ]
    return found


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


if __name__ == "__main__":
    main()
