"""Convert a copy of the book with Jupyter Book 2, and report what breaks.

`python -m tools.jb2` needs Node.js 18 or newer, and the package index for Jupyter Book 2, which it
installs into a temporary environment. The sources are parsed and resolved, not rendered: themes
come from another server than packages do. The book itself stays on Jupyter Book 1.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import yaml

from tools import book, pairs
from tools.book import BookError

PACKAGE = "jupyter-book>=2,<3"
CONTENT = Path("_build/site/content")  # where it writes a JSON file for each page
THEME = "theme"
# A theme with nothing in it, so that none is downloaded
EMPTY_THEME = "myst: v1\ntitle: Empty\nbuild: {install: 'true', start: 'true'}\n"

# HTML elements that become nodes of another name
TRANSLATED = {"a", "b", "br", "code", "em", "figure", "i", "img", "p", "strong", "sub", "sup"}

COMPLAINT = re.compile(r"^(?:⚠️|⛔️)\s+(\S+?)(?::\d+)? (.+)$", re.MULTILINE)
PARTICULARS = re.compile(r'"[^"]*"| \(at .*\)$')  # what differs from place to place
LOOKED_UP = "Could not find DOI"  # it asks doi.org for each DOI; no fault of the book
SECONDS = 600


def report(root: Path) -> str:
    """Convert a copy of the book in `root`; return what breaks, as Markdown."""
    with tempfile.TemporaryDirectory() as folder:
        there = Path(folder)
        program = install(there / "environment")
        copy = copy_of(root, there / "book")
        log = convert(copy, program)
        return summary(copy, log, book.pages(root))


def install(folder: Path) -> Path:
    """Install Jupyter Book 2 into a new environment; return its program."""
    if shutil.which("node") is None:
        raise BookError("Jupyter Book 2 needs Node.js 18 or newer; install it and try again.")
    _run([sys.executable, "-m", "venv", str(folder)], folder.parent)
    _run([str(folder / "bin" / "pip"), "install", "--quiet", PACKAGE], folder.parent)
    return folder / "bin" / "jupyter-book"


def copy_of(root: Path, target: Path) -> Path:
    """Copy the files that git knows of, or would add."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in _run(listed, root).split("\0"):
        if (root / name).is_file():
            book.copy(root / name, target / name)
    return target


def convert(copy: Path, program: Path) -> str:
    """Upgrade the settings of a copy and build its content; return what the program printed."""
    # It upgrades, with an "are you sure", and then fails where there is no theme to download.
    _run([str(program), "init"], copy, answers="y\n" * 9, must=False)
    settings = copy / "myst.yml"
    if not settings.exists():
        raise BookError("Jupyter Book 2 did not upgrade _config.yml; run it by hand to see why.")
    (copy / THEME).mkdir()
    (copy / THEME / "template.yml").write_text(EMPTY_THEME, encoding="utf-8")
    upgraded = yaml.safe_load(settings.read_text(encoding="utf-8"))
    upgraded["site"]["template"] = THEME
    settings.write_text(yaml.safe_dump(upgraded), encoding="utf-8")
    return _run([str(program), "build", "--site"], copy)


def summary(copy: Path, log: str, pages: list[str]) -> str:
    """Return a list of what breaks in a converted copy."""
    made = [
        json.loads(path.read_text(encoding="utf-8")) for path in (copy / CONTENT).glob("*.json")
    ]
    elements = (f"`<{tag}>` ({count})" for tag, count in dropped(copy, pages, made))
    rows = [
        *(f"{what} ({count})" for what, count in complaints(log).most_common()),
        f"HTML elements that are dropped: {', '.join(elements)}",
        f"settings of Sphinx that are not taken over: {', '.join(unheard(copy))}",
    ]
    made_pages = f"Jupyter Book 2 made {len(made)} of {len(pages)} pages. What breaks:"
    return "\n".join([made_pages, "", *(f"- {row}" for row in rows)])


def complaints(log: str) -> Counter[str]:
    """Count the warnings and errors of a log by their text, without names and places."""
    texts = [text for _, text in COMPLAINT.findall(log) if LOOKED_UP not in text]
    return Counter(PARTICULARS.sub("", text).strip() for text in texts)


def dropped(copy: Path, pages: list[str], made: list[Any]) -> Iterator[tuple[str, int]]:
    """Yield the HTML elements of the pages' text that the converted pages have less often."""
    wanted: Counter[str] = Counter()
    for page in pages:
        wanted += _elements(_text(copy / page))
    kept: Counter[str] = Counter()
    for page_made in made:
        kept += Counter(_types(page_made.get("mdast")))
    for tag, count in sorted((wanted - kept).items()):
        if tag not in TRANSLATED:
            yield tag, count - kept[tag]


def unheard(copy: Path) -> list[str]:
    """Return the settings of Sphinx that Jupyter Book 2 has no place for."""
    hidden = copy / "._config.yml.bak"  # the name that the upgrade gives it
    settings = yaml.safe_load(hidden.read_text(encoding="utf-8"))
    return sorted(f"`{key}`" for key in settings.get("sphinx", {}).get("config", {}))


def _text(page: Path) -> str:
    """Return the Markdown of a page or a chapter, without code."""
    path = page if page.suffix else page.with_suffix(".md")
    if path.suffix != ".ipynb":
        text = path.read_text(encoding="utf-8")
    else:
        cells = pairs.read_notebook(path).cells
        text = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    return re.sub(r"```.*?```|`[^`]*`|<!--.*?-->", "", text, flags=re.DOTALL)


def _elements(text: str) -> Counter[str]:
    """Count the HTML elements that a text opens."""
    parser = _Opened()
    parser.feed(text)
    return parser.count


class _Opened(HTMLParser):
    """A parser that counts the elements that are opened."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.count[tag] += 1


def _types(node: Any) -> Iterator[str]:
    """Yield the type of each node of a converted page."""
    if isinstance(node, dict):
        if isinstance(node.get("type"), str):
            yield node["type"]
        for value in node.values():
            yield from _types(value)
    elif isinstance(node, list):
        for value in node:
            yield from _types(value)


def _run(command: list[str], folder: Path, answers: str = "", must: bool = True) -> str:
    """Run a command and return what it printed; `answers` is its standard input."""
    done = subprocess.run(
        command,
        cwd=folder,
        input=answers,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=SECONDS,
        check=False,
    )
    if must and done.returncode:
        raise BookError(f"{' '.join(command)} failed:\n{done.stdout}")
    return done.stdout


def main() -> None:
    """Report on the book in the current folder."""
    try:
        print(report(Path.cwd()))
    except BookError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
