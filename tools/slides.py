"""Make slides from the executed chapters, as `make slides`: a deck of reveal.js for each chapter.

A section opens with its heading and its first sentences. Each figure, table, question and exercise
is a slide of its own. The rest of the text becomes speaker notes.
"""

import argparse
import html
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.tree import SyntaxTreeNode
from mdit_py_plugins.amsmath import amsmath_plugin
from mdit_py_plugins.dollarmath import dollarmath_plugin
from nbformat import NotebookNode

from tools import book, pairs
from tools.book import BUILD, BookError
from tools.build import bring_mathjax, package_folder
from tools.execute import STAGE
from tools.questions import QUESTION
from tools.syllabus import PREDICT

SLIDES = BUILD / "slides"
LEAD_WORDS = 45  # of the first sentences on a slide; our choice
# Tags by which a chapter departs from the rules: all of a cell on slides, or nothing of it.
WHOLE, NOTHING = "slide", "no-slide"
UNSEEN = {book.COLAB, book.PARAMETERS, book.SOLUTION, book.CHECK, NOTHING, "remove-cell"}
WITHOUT_SLIDES = {"Sources"}  # headings of sections
LICENCE = (
    "Text and figures: CC BY 4.0, the authors of Few Labels, Little Memory. "
    "The page References of the book cites the data sets."
)
ALL_TEXT = {"Summary"}  # sections whose text is on the slide
ROWS = 16  # of a table on a slide; with more, its letters get small (our choice)
LIVE = 'class="claims"'  # a table that a reader filters stays whole
SPANNING = re.compile(r'<th rowspan="(\d+)"(.*?</th>)', re.DOTALL)  # as pandas writes it
CAPTION = re.compile(r"\*\*Table [\d.]+\*\* ")  # of a table in Markdown, as tools.stage writes it

REVEAL = ("dist/reset.css", "dist/reveal.css", "dist/reveal.js", "plugin/notes/notes.js")
OWN = ("shared.js", "figures.js", "slides.js", "slides.css")

PAGE = """\
<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<link rel="stylesheet" href="assets/reset.css"><link rel="stylesheet" href="assets/reveal.css">
<link rel="stylesheet" href="assets/slides.css">
<script defer src="assets/shared.js"></script><script defer src="assets/figures.js"></script>
<script defer src="assets/slides.js"></script>
<script defer src="assets/mathjax/tex-svg-full.js"></script>
</head><body><div class="reveal"><div class="slides">
{slides}
</div></div>
<script src="assets/reveal.js"></script><script src="assets/notes.js"></script>
<script>Reveal.initialize({{width: 1280, height: 720, center: false, hash: true, transition: "none",
  plugins: [RevealNotes]}});</script>
</body></html>
"""
LIST = """\
<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}: slides</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,"><link rel="stylesheet" href="assets/slides.css"></head>
<body class="decks"><main><h1>{title}: slides</h1>
<p>Arrow keys move, S opens the speaker notes, O shows all slides.</p>
<ul>
{decks}
</ul></main></body></html>
"""


@dataclass
class Slide:
    """A slide as HTML: heading, what is below it, and speaker notes."""

    title: str
    body: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    kind: str = "text"

    def html(self) -> str:
        """The slide as reveal.js takes it."""
        content = "".join(self.body)
        parts = [f"<h2>{self.title}</h2>", f'<div class="content">{content}</div>']
        if self.notes:
            parts.append(f'<aside class="notes">{"".join(self.notes)}</aside>')
        return f'<section class="{self.kind}">{"".join(parts)}</section>'


def _math(content: str, options: dict[str, bool]) -> str:
    opening, closing = ("\\[", "\\]") if options["display_mode"] else ("\\(", "\\)")
    return html.escape(f"{opening}{content}{closing}")


MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable("table")
MARKDOWN.use(dollarmath_plugin, renderer=_math).use(amsmath_plugin, renderer=html.escape)


def rendered(node: SyntaxTreeNode) -> str:
    """Return a block as HTML, without links into the book, which would lead out of the deck."""
    text = MARKDOWN.renderer.render(node.to_tokens(), MARKDOWN.options, {})
    return re.sub(r'<a href="(?!https?:)[^"]*">(.*?)</a>', r"\1", text, flags=re.DOTALL)


def inline(source: str) -> str:
    """Return a line of Markdown as HTML."""
    return rendered(SyntaxTreeNode(MARKDOWN.parseInline(source)))


def lead(source: str) -> str:
    """Return the first sentences of a paragraph, as many as a slide takes, and at least one."""
    taken = ""
    for sentence in re.split(r"(?<=[.?!]) (?=[A-Z*`$])", " ".join(source.split())):
        if taken and len(f"{taken} {sentence}".split()) > LEAD_WORDS:
            break
        taken = f"{taken} {sentence}".strip()
    return taken


class Deck:
    """The slides of a chapter: a list of sections, each a list of slides."""

    def __init__(self, notebook: NotebookNode) -> None:
        self.sections: list[list[Slide]] = []
        self.folded = False  # inside <details>, an answer that a class should not see yet
        self.caption = ""  # of the table that follows
        for cell in notebook.cells:
            if cell.get("id") == "provenance":
                self._credits(cell)
            elif not UNSEEN & set(book.tags(cell)):
                add = self._text if cell.cell_type == "markdown" else self._code
                add(cell)
        kept = [one for one in self.sections if one[0].title not in WITHOUT_SLIDES]
        self.sections = [without_bare_headings(section) for section in kept]

    @property
    def slides(self) -> list[Slide]:
        """All slides."""
        return [slide for section in self.sections for slide in section]

    def html(self) -> str:
        """The deck as reveal.js takes it: sections side by side, the slides of each in a column."""
        columns = ("".join(slide.html() for slide in section) for section in self.sections)
        return "\n".join(f"<section>{column}</section>" for column in columns)

    def _credits(self, card: NotebookNode) -> None:
        """Add the last slide: the data sets with their licences, from the card of the page."""
        data = re.search(r"<dt>Data</dt><dd>(.*?)</dd>", card.source)
        body = [f"<p>Images: {data[1]}.</p>" if data else "", f"<p>{LICENCE}</p>"]
        self.sections.append([Slide("Data and licences", body)])

    def _text(self, cell: NotebookNode) -> None:
        if QUESTION in book.tags(cell):
            self._add("", "question")
        for block in SyntaxTreeNode(MARKDOWN.parse(cell.source)).children:
            if block.type == "heading":
                self._heading(block)
            else:
                self._block(block, whole=WHOLE in book.tags(cell))

    def _heading(self, block: SyntaxTreeNode) -> None:
        title = inline(block.children[0].content)
        slide = Slide(title, kind="title" if block.tag == "h1" else "text")
        if block.tag in {"h1", "h2"} or not self.sections:
            self.sections.append([slide])
        else:
            slide.kind = "exercise" if title.startswith("Exercise") else "text"
            self.sections[-1].append(slide)

    def _block(self, block: SyntaxTreeNode, whole: bool) -> None:
        here, source = self.sections[-1][-1], rendered(block)
        fits = whole or self._on_slide(here)
        if block.type == "html_block" or self.folded:
            here.notes.append(re.sub(r"</?(details|summary)[^>]*>", "", source))
            for mark in re.findall(r"</?details", source):
                self.folded = mark == "<details"
        elif block.type == "blockquote" and PREDICT[4:-2] in source:
            self._add(source, "predict")
        elif block.type == "paragraph" and CAPTION.match(block.children[0].content):
            self.caption = source
        elif block.type == "table":
            self._table(self.caption + source)
            self.caption = ""
        elif block.type in {"math_block", "math_block_label", "amsmath"} or fits:
            here.body.append(source)
        elif block.type == "paragraph" and not here.body:
            here.body.append(f"<p>{inline(lead(block.children[0].content))}</p>")
            here.notes.append(source)
        elif block.type == "bullet_list" and here.kind == "title":  # what readers learn
            here.body.append(source)
        else:
            here.notes.append(source)

    def _on_slide(self, slide: Slide) -> bool:
        """Whether all text below the heading of a slide is on it."""
        whole = slide.kind in {"exercise", "question"}
        return whole or self.sections[-1][0].title in ALL_TEXT

    def _add(self, content: str, kind: str) -> None:
        """Add a slide with the heading of its section."""
        self.sections[-1].append(Slide(self.sections[-1][-1].title, [content], kind=kind))

    def _code(self, cell: NotebookNode) -> None:
        if WHOLE in book.tags(cell):
            self._add(f"<pre><code>{html.escape(cell.source)}</code></pre>", "code")
            for output in cell.outputs:
                if printed := output.get("text"):
                    self.sections[-1][-1].body.append(f"<pre>{html.escape(printed)}</pre>")
        for shown in outputs(cell):
            if "<table" in shown:
                self._table(shown)
            else:
                self._add(shown, "figure")

    def _table(self, shown: str) -> None:
        for part in parts_of_table(shown):
            self._add(part, "table")


def without_bare_headings(section: list[Slide]) -> list[Slide]:
    """Leave out slides that have a heading alone, if slides follow; those get their notes."""
    kept: list[Slide] = []
    for slide in reversed(section):
        if any(slide.body) or not kept:
            kept.insert(0, slide)
        else:
            kept[0].notes[:0] = slide.notes
    return kept


def parts_of_table(shown: str) -> list[str]:
    """Return a table with its caption, as several ones of about the same length if it is long.

    Each has the head of the table; the name of rows that are on two slides is on both.
    """
    found = re.fullmatch("(.*<tbody>)(.*)(</tbody>.*)", shown, flags=re.DOTALL)
    rows = re.findall("<tr.*?</tr>", found[2], flags=re.DOTALL) if found else []
    if not found or len(rows) <= ROWS or LIVE in shown:
        return [shown]
    number = -(-len(rows) // ROWS)
    ends = [len(rows) * part // number for part in range(number + 1)]
    chunks = [_with_spans(rows, start, end) for start, end in pairwise(ends)]
    return [found[1] + "".join(chunk) + found[3] for chunk in chunks]


def _with_spans(rows: list[str], start: int, end: int) -> list[str]:
    """Return rows from `start` to `end` with the cells that span them, cut at both ends."""
    above = ""
    for number, row in enumerate(rows[:start]):
        for cell in SPANNING.finditer(row):
            if (left := number + int(cell[1]) - start) > 0:
                above += f'<th rowspan="{left}"{cell[2]}'
    first = re.sub("(<tr[^>]*>)", lambda tag: tag[1] + above, rows[start])
    kept = enumerate([first, *rows[start + 1 : end]], start)
    return [_shortened(row, end - number) for number, row in kept]


def _shortened(row: str, most: int) -> str:
    """Return a row whose cells span `most` rows or fewer."""
    return SPANNING.sub(lambda cell: f'<th rowspan="{min(int(cell[1]), most)}"{cell[2]}', row)


def outputs(cell: NotebookNode) -> Iterator[str]:
    """Yield the figures and tables that a cell shows."""
    if "remove-output" not in book.tags(cell):
        for output in cell.outputs:
            shown = output.get("data", {}).get("text/html", "")
            if re.search("<(img|figure|table)", shown):
                yield shown


def make(root: Path) -> str:
    """Make `_build/slides`; return a line that says what and where it is.

    Raises:
        BookError: the book is not built, or reveal.js is missing.
    """
    if not (root / STAGE / "_toc.yml").exists():
        raise BookError("the book is not built yet; run: make book.")
    bring_assets(root)
    links, slides = [], 0
    for chapter in book.chapters(root):
        deck, name = Deck(pairs.read_notebook(root / STAGE / chapter)), f"{chapter.stem}.html"
        title = re.sub(r"<[^>]*>", "", deck.slides[0].title)
        book.write(root / SLIDES / name, PAGE.format(title=title, slides=deck.html()))
        links.append(f'<li><a href="{name}">{title}</a>, {len(deck.slides)} slides</li>')
        slides += len(deck.slides)
    title = html.escape(book.settings(root)["title"])
    book.write(root / SLIDES / "index.html", LIST.format(title=title, decks="\n".join(links)))
    made = f"{len(links)} decks with {slides} slides"
    return f"slides: {SLIDES}/index.html, {made}, {book.megabytes(root / SLIDES)}"


def bring_assets(root: Path) -> None:
    """Copy reveal.js, MathJax and our scripts and style beside the decks."""
    folder, reveal = root / SLIDES / "assets", package_folder("sphinx_revealjs")
    shutil.rmtree(root / SLIDES, ignore_errors=True)
    for name in REVEAL:
        book.copy(reveal / "_static" / "revealjs" / name, folder / Path(name).name)
    for name in OWN:
        book.copy(root / "book" / "_static" / name, folder / name)
    bring_mathjax(folder)


def main() -> None:
    """Make the slides of the book in the current folder."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    try:
        print(make(Path.cwd()))
    except BookError as error:
        raise SystemExit(f"make slides stopped: {error}") from error


if __name__ == "__main__":
    main()
