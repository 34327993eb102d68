"""Check the sources of the book: pairs, structure, exercises, plain English, addresses, versions.

The conventions are in CONTRIBUTING.md, "Writing a chapter". Each message names the convention that
a chapter does not follow.
"""

import re
import statistics
from collections.abc import Iterator
from pathlib import Path

from nbformat import NotebookNode

from medsaga_lib.display.real_cells import REAL_MARK
from tools import book, exercises, glossary, pairs, prose, questions, syllabus

# Our choice of numbers.
LONGEST_CELL, MEDIAN_CELL = 25, 6
WIDEST_CODE = 80  # columns of a line; a page shows about as many
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
CONTENTS = Path("book/index.md")  # its table of the chapters needs no caption
LONGEST_CHAPTER = 3  # minutes of the quick profile
EXERCISES = range(3, 6)

MARKDOWN_IMAGE = re.compile(r"!\[(?P<alt>[^\]]*)\]\(")
HTML_IMAGE = re.compile(r"<img\b[^>]*>")
DIRECTIVE = re.compile(r"^(```+|~~~+|:::+)\s*\{|\{[a-z:]+\}`", re.MULTILINE)
# Links that must point at this repository: a notebook in Colab, a badge of the build.
OWN_LINK = re.compile(
    r"colab\.research\.google\.com/github/([\w.-]+/[\w.-]+)/blob/"
    r"|github\.com/([\w.-]+/[\w.-]+)/actions/"
)
# Where the version is; in the changelog it is the newest heading
VERSIONS = {
    "pyproject.toml": re.compile(r'^version = "(.+)"$', re.MULTILINE),
    "medsaga_lib/__init__.py": re.compile(r'^__version__ = "(.+)"$', re.MULTILINE),
    "CITATION.cff": re.compile(r"^version: (\S+)$", re.MULTILINE),
    "CHANGELOG.md": re.compile(r"^## ([^\s,]+)", re.MULTILINE),
    "book/index.md": re.compile(r"^  note = \{Version (.+)\},$", re.MULTILINE),
}
SHOWS_WITHOUT_ALT = re.compile(r"\bplt\.show\(|\bdisplay\(\s*fig")


def lint(root: Path) -> list[str]:
    """Return the problems of the book's sources under `root`, one sentence each."""
    problems = pairs.check(root)
    listed = {root / chapter for chapter in book.chapters(root)}
    for _, file in pairs.pairs(root):
        if file not in listed:
            problems.append(f"{file.relative_to(root)} is not in _toc.yml")
    for chapter in book.chapters(root):
        if not (root / chapter).exists():
            problems.append(f"{chapter} is in _toc.yml, but there is no such file")
            continue
        notebook = exercises.unfolded(pairs.read_notebook(root / chapter))
        found = [*structure(notebook, root), *wrong_answers(notebook, root, chapter)]
        problems += [f"{chapter}: {problem}" for problem in found]
        problems += [f"{chapter}: {problem}" for problem in unexplained(notebook, root)]
    for page in [*sorted((root / "book").glob("*.md")), *(root / name for name in PAGES)]:
        name = page.relative_to(root)
        problems += [f"{name}: {problem}" for problem in prose.problems(read(page))]
        if name.parent == Path("book") and name != CONTENTS and has_bare_table(read(page)):
            problems.append(f"{name} has a table without a line 'Table: its caption' above it")
    return [*problems, *addresses(root), *versions(root), *syllabus.problems(root)]


def has_bare_table(text: str) -> bool:
    """Return whether a Markdown table of a text has no caption."""
    return len(book.TABLE.findall(text)) != len(book.TABLE_CAPTION.findall(text))


def structure(notebook: NotebookNode, root: Path) -> Iterator[str]:
    """Yield the conventions that a chapter does not follow."""
    yield from opening(notebook, root)
    yield from code(notebook)
    yield from text(notebook)
    yield from exercise_cells(notebook)
    yield from questions.problems(notebook)


def unexplained(notebook: NotebookNode, root: Path) -> Iterator[str]:
    """Yield the abbreviations and terms of a chapter that the glossary does not explain."""
    names = {name for term in glossary.terms(root) for name in term.names}
    names |= {part for name in names for part in name.split("-")}  # DAE-Former
    if names:
        sources = (cell.source for cell in notebook.cells if cell.cell_type == "markdown")
        text = "\n".join(sources)
        used = prose.abbreviations(text) | prose.standard_terms(text)
        for word in sorted(used - names - {f"{name}s" for name in names}):
            yield f"'{word}' is not in {glossary.PAGE}; explain it there"


def opening(notebook: NotebookNode, root: Path) -> Iterator[str]:
    """Check title, goals, prerequisites and budget, then the Colab and the parameters cell."""
    first = notebook.cells[0] if notebook.cells else None
    if first is None or first.cell_type != "markdown" or not first.source.startswith("# "):
        yield "the first cell must be Markdown and open with '# ' and the title"
        return
    if not re.search(r"^\*\*You will be able to\*\*\n\n?(- .+\n?){2,}", first.source, re.MULTILINE):
        yield "the first cell has no '**You will be able to**' with at least two '- ' goals below"
    if not re.search(r"^\*\*Before this\*\* \S", first.source, re.MULTILINE):
        yield "the first cell has no line '**Before this** ' with the prerequisites"
    declared = book.budget(notebook)
    if declared is None:
        yield (
            "the first cell has no line '**Budget** 2 minutes on two CPU cores, "
            "1.5 GB of memory, 0 MB to download' (with its own numbers)"
        )
    elif declared.minutes > LONGEST_CHAPTER:
        yield f"the budget is {declared.minutes} minutes; the limit is {LONGEST_CHAPTER}"
    cells = book.code_cells(notebook)
    if not cells or book.tags(cells[0]) != [book.COLAB]:
        yield f"the first code cell must have the tag '{book.COLAB}'; make sync fills it"
    elif cells[0].source != book.colab_cell(root):
        yield "the Colab cell differs from the one in tools/book.py; run: make sync"
    parameters = [cell.source for cell in cells if book.PARAMETERS in book.tags(cell)]
    if len(parameters) != 1 or not all(
        re.search(line, parameters[0], re.MULTILINE)
        for line in (r'^profile = "quick"', r"^seed = \d+")
    ):
        yield "one cell tagged 'parameters' must set profile = \"quick\" and seed = a number"


def code(notebook: NotebookNode) -> Iterator[str]:
    """Check that cells are short, figures have alt text and a cell names the data."""
    cells = [cell for cell in book.code_cells(notebook) if book.COLAB not in book.tags(cell)]
    lengths = [len(cell.source.splitlines()) for cell in cells]
    for cell, length in zip(cells, lengths, strict=True):
        head = cell.source.splitlines()[0] if length else ""
        if length == 0:
            yield "a code cell is empty"
        if (book.REAL in book.tags(cell)) != cell.source.startswith(f"{REAL_MARK}\n"):
            yield f"the cell '{head}': the tag 'real' and the first line '{REAL_MARK}' go together"
        if length > LONGEST_CELL:
            yield f"the cell '{head}' has {length} lines; the limit is {LONGEST_CELL}"
        if SHOWS_WITHOUT_ALT.search(cell.source):
            yield (
                f"the cell '{head}' shows a figure without alt text; use display.show(fig, alt=...)"
            )
        if "display.show(" in cell.source and "caption" not in cell.source:
            yield f"the cell '{head}' shows a figure without a caption; add caption=..."
        for line in cell.source.splitlines():
            if len(line) > WIDEST_CODE:
                yield f"'{line[:40]}...' has {len(line)} columns; the limit is {WIDEST_CODE}"
    median = statistics.median(lengths) if lengths else 0
    if median > MEDIAN_CELL:
        yield f"the median code cell has {median:g} lines; the limit is {MEDIAN_CELL}"
    opens = any("open_dataset(" in cell.source for cell in cells)
    if opens and not any(book.DATA in book.tags(cell) for cell in cells):
        yield "it opens a data set, but no cell tagged 'data' prints its name"


def text(notebook: NotebookNode) -> Iterator[str]:
    """Check for plain Markdown that Colab shows too, alt text of images and a summary."""
    sources = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    for source in sources:
        head = source.splitlines()[0] if source else ""
        if DIRECTIVE.search(source):
            yield f"'{head}' uses a MyST directive or role, which Colab shows as raw text"
        blank = [image for image in MARKDOWN_IMAGE.finditer(source) if not image["alt"].strip()]
        blank += [tag for tag in HTML_IMAGE.finditer(source) if 'alt="' not in tag[0]]
        if blank:
            yield f"'{head}' has an image without alt text"
        if has_bare_table(source):
            yield f"'{head}' has a table without a line 'Table: its caption' above it"
        yield from prose.problems(source)
    for cell in book.code_cells(notebook):
        yield from prose.problems(cell.metadata.get("caption", ""))
    if not any(re.search(r"^## Summary$", source, re.MULTILINE) for source in sources):
        yield "there is no '## Summary'"


def exercise_cells(notebook: NotebookNode) -> Iterator[str]:
    """Check that each exercise is a titled text, a stub, a solution and a check, in this order."""
    cells, kinds = notebook.cells, set()
    stubs = [number for number, cell in enumerate(cells) if book.EXERCISE in book.tags(cell)]
    if len(stubs) not in EXERCISES:
        yield f"it has {len(stubs)} exercises; it should have {EXERCISES[0]} to {EXERCISES[-1]}"
    for count, number in enumerate(stubs, start=1):
        title = book.EXERCISE_TITLE.search(cells[number - 1].source) if number else None
        if title is None or int(title["number"]) != count:
            yield (
                f"exercise {count}: the cell before its stub must be Markdown with a heading "
                f"like '### Exercise {count}: calculate (easy, 5 minutes)'"
            )
        else:
            kinds.add(title["kind"])
        follows = [book.tags(cell) for cell in cells[number + 1 : number + 3]]
        if follows != [[book.SOLUTION], [book.CHECK]]:
            yield f"exercise {count}: the stub must be followed by a solution, then a check"
    if missing := [kind for kind in book.KINDS if kind not in kinds]:
        yield f"it has no exercise of the kind {', '.join(missing)}"
    tagged = sum({book.SOLUTION, book.CHECK} & set(book.tags(cell)) != set() for cell in cells)
    if tagged > 2 * len(stubs):
        yield "a solution or a check has no exercise"


def wrong_answers(notebook: NotebookNode, root: Path, chapter: Path) -> Iterator[str]:
    """Check that each exercise has wrong answers, which the build gives to its check."""
    path = exercises.answers_path(root, chapter).relative_to(root)
    if not (root / path).exists():
        yield f"there is no {path}, where the wrong answers of its exercises belong"
        return
    try:
        listed = exercises.read_answers(root, chapter)
    except (book.BookError, ValueError) as error:
        yield f"{path}: {error}"
        return
    stubs = sum(book.EXERCISE in book.tags(cell) for cell in notebook.cells)
    for count in sorted({*range(1, stubs + 1)} ^ {*listed}):
        if count in listed:
            yield f"{path} has answers to exercise {count}, which is not in the chapter"
        else:
            yield f"{path} has no wrong answer to exercise {count}"


def addresses(root: Path) -> Iterator[str]:
    """Yield files that do not point at the repository in `_config.yml`."""
    ours = "/".join(book.address(root).split("/")[-2:])
    for file in ("README.md", "CITATION.cff", "CONTRIBUTING.md"):
        content = read(root / file)
        if ours not in content:
            yield f"{file} does not name {ours}, the repository in _config.yml"
        for other in sorted({one or two for one, two in OWN_LINK.findall(content)} - {ours}):
            yield f"{file} points at {other}; _config.yml says {ours}"


def versions(root: Path) -> Iterator[str]:
    """Yield files whose version differs from that of pyproject.toml."""
    wanted = VERSIONS["pyproject.toml"].search(read(root / "pyproject.toml"))
    for file, pattern in VERSIONS.items():
        found = pattern.search(read(root / file))
        if wanted and (found is None or found[1] != wanted[1]):
            ours = found[1] if found else "no version"
            yield f"{file} has {ours}, but pyproject.toml has the version {wanted[1]}"


def read(path: Path) -> str:
    """Return the text of a file; nothing if there is no such file."""
    return path.read_text(encoding="utf-8") if path.exists() else ""


def main() -> None:
    """Check the book in the current folder."""
    if problems := lint(Path.cwd()):
        raise SystemExit("\n".join(problems))


if __name__ == "__main__":
    main()
