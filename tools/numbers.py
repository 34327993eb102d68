"""Report numbers in a chapter's prose that nothing on its page shows.

`python -m tools.numbers [CHAPTER ...]` reads executed chapters, by default those that were staged;
`make book` ends with the same lines.
A number with a decimal point must be in the output or the code of a cell. It may be rounded, in a
sentence with a percent sign it may be a share, and in one with "million" a whole number. A
paragraph that links another chapter may have numbers that are shown there, and a sentence that
names a paper may have numbers of its tables. Numbers that the prose only reasons about are found
too, so this is a report and no check. A wrong number that is equal to another one of the page is
not found.
"""

import argparse
import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from nbformat import NotebookNode

from tools import book, pairs
from tools.execute import STAGE
from tools.prose import FENCE, HIDDEN, SENTENCE

NUMBER = re.compile(
    r"(?<!Table )(?<!Figure )(?<!Tables )(?<![\w.,-])\d+(?:,\d{3})*\.\d+(?![\w.]*\d)"
)
ANY_NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?(?:e-?\d+)?")
# What a page holds without showing it: the numbers behind a figure with controls
UNSEEN = re.compile(r"<(script|style)\b.*?</\1>|<[^>]+>", re.DOTALL)
CHAPTER = re.compile(r"\]\((\w+\.ipynb)[^)\s]*\)")
CODE = re.compile(r"`[^`\n]*`|\$\$.*?\$\$|\$[^$\n]*\$", re.DOTALL)
SCALES = {"%": 100, "million": 1e-6}
ANY_PAPER = re.compile(r"\bpaper|\bpublished")
PUBLISHED = Path("medsaga_lib/claims")
PAPERS = {  # what a sentence calls a paper, and the beginning of the names of its tables
    "MedSAGa": "medsaga_",
    "LiteMedSAM": "litemedsam_",
    "S-SAM": "s_sam_",
    "Cheap Lunch": "cheap_lunch_",
    "torchao": "torchao_",
    "references.md": "facts",
}


def unprinted(notebook: NotebookNode, root: Path) -> Iterator[tuple[str, str]]:
    """Yield (number, its sentence) for each number of the prose that nothing shows."""
    shown, folder = values(sources(notebook)), root / STAGE / "notebooks"
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and not cell.source.startswith("<aside"):  # no card
            for paragraph in CODE.sub(" ", FENCE.sub("", cell.source)).splitlines():
                linked = [of_chapter(folder / name) for name in CHAPTER.findall(paragraph)]
                for sentence in SENTENCE.split(paragraph):
                    pools = [shown, *linked, *published(sentence, root)]
                    scales = [1, *(scale for unit, scale in SCALES.items() if unit in sentence)]
                    for number in NUMBER.findall(HIDDEN.sub(" ", sentence)):
                        if not any(agrees(number, pool, scales) for pool in pools):
                            yield number, sentence.strip()


def sources(notebook: NotebookNode) -> Iterator[str]:
    """Yield the code and the texts that a page shows."""
    for cell in book.code_cells(notebook):
        yield cell.source
        for output in cell.outputs:
            yield str(output.get("text", ""))
            for kind, content in output.get("data", {}).items():
                yield UNSEEN.sub(" ", content) if kind.startswith("text/") else ""


def published(sentence: str, root: Path) -> Iterator[list[float]]:
    """Yield the numbers of the papers that a sentence names, of all if it says "the paper"."""
    for name, start in PAPERS.items():
        if name in sentence or ANY_PAPER.search(sentence):
            yield of_paper(root / PUBLISHED, start)


@cache
def of_chapter(path: Path) -> list[float]:
    """Return the numbers that an executed chapter shows; none if there is no such chapter."""
    return values(sources(pairs.read_notebook(path))) if path.exists() else []


@cache
def of_paper(folder: Path, start: str) -> list[float]:
    """Return the numbers of the published tables whose names begin so."""
    tables = sorted(folder.rglob(f"{start}*.csv"))
    return values(table.read_text(encoding="utf-8") for table in tables)


def values(texts: Iterable[str]) -> list[float]:
    """Return the numbers in texts, in order and each once."""
    return sorted({value(number) for text in texts for number in ANY_NUMBER.findall(text)})


def value(text: str) -> float:
    """Return a number as printed, with commas between thousands."""
    return float(text.replace(",", ""))


def agrees(number: str, shown: list[float], scales: Iterable[float]) -> bool:
    """Return whether a number of the prose is one of those shown, in order, times a scale.

    The prose may have rounded it.
    """
    slack = 0.5 * 10 ** -len(number.partition(".")[2]) * (1 + 1e-9)
    for scale in scales:
        least, most = (value(number) - slack) / scale, (value(number) + slack) / scale
        place = bisect_left(shown, least)
        if place < len(shown) and shown[place] <= most:
            return True
    return False


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
