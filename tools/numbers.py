"""Report numbers in a chapter's prose that nothing on its page shows.

`python -m tools.numbers [CHAPTER ...]` reads executed chapters, by default those that were staged;
`make book` ends with the same lines.
A number with a decimal point must be in the output or the code of a cell, in a recorded file that
the page names, or in a published table. It may be rounded, and may be a share in percent. Numbers
that the prose only reasons about are found too, so this is a report and no check.
"""

import argparse
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from nbformat import NotebookNode

from tools import book, pairs
from tools.execute import STAGE
from tools.prose import FENCE, HIDDEN

NUMBER = re.compile(
    r"(?<!Table )(?<!Figure )(?<!Tables )(?<![\w.,-])\d+(?:,\d{3})*\.\d+(?![\w.]*\d)"
)
ANY_NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?(?:e-?\d+)?")
RECORDED = re.compile(r"recorded/\w+\.json|(?<=read\(\")\w+")
PUBLISHED = Path("medsaga_lib/claims")


def unprinted(notebook: NotebookNode, root: Path) -> Iterator[tuple[str, str]]:
    """Yield (number, its sentence) for each number of the prose that the page does not show."""
    shown = sorted(set(map(value, ANY_NUMBER.findall("\n".join(sources(notebook, root))))))
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and not cell.source.startswith("<aside"):  # no card
            for line in HIDDEN.sub(" ", FENCE.sub("", cell.source)).splitlines():
                for number in NUMBER.findall(line):
                    if not any(agrees(number, other) for other in shown):
                        yield number, line.strip()


def sources(notebook: NotebookNode, root: Path) -> Iterator[str]:
    """Yield the texts in which a number of the prose may be."""
    for cell in book.code_cells(notebook):
        yield cell.source
        for output in cell.outputs:
            yield str(output.get("text", ""))
            for kind, content in output.get("data", {}).items():
                yield content if kind.startswith("text/") else ""
        for name in RECORDED.findall(cell.source):
            file = root / "notebooks" / "recorded" / f"{Path(name).stem}.json"
            yield file.read_text(encoding="utf-8") if file.exists() else ""
    for table in (root / PUBLISHED).rglob("*.csv"):
        yield table.read_text(encoding="utf-8")


def value(text: str) -> float:
    """Return a number as printed, with commas between thousands."""
    return float(text.replace(",", ""))


def agrees(number: str, other: float) -> bool:
    """Return whether a number of the prose is `other`, rounded, perhaps as a share in percent."""
    places = len(number.partition(".")[2])
    slack = 0.5 * 10**-places * (1 + 1e-9)
    return any(abs(scale * other - value(number)) <= slack for scale in (1, 100))


def report(root: Path, chapters: Iterable[Path] = ()) -> Iterator[str]:
    """Yield a line for each number that the executed chapters do not show."""
    for chapter in chapters or sorted((root / STAGE / "notebooks").glob("*.ipynb")):
        for number, line in unprinted(pairs.read_notebook(chapter), root):
            yield f"{chapter.name}: {number} in '{line[:100]}'"


def main() -> None:
    """Print the numbers that the executed chapters do not show."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("chapters", nargs="*", type=Path)
    for line in report(Path.cwd(), parser.parse_args().chapters):
        print(line)


if __name__ == "__main__":
    main()
