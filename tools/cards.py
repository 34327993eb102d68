"""Social cards: what other sites show of a link to a chapter, its first figure and its goals."""

import base64
import io
import re
from pathlib import Path

from bs4 import BeautifulSoup
from nbformat import NotebookNode
from PIL import Image, ImageOps

from medsaga_lib.files import write_bytes
from tools import book

FOLDER = Path("book/_static/cards")  # in the staging folder
SIZE = 1200, 630  # px, the shape that other sites show whole
MARGIN = 30  # px; our choice
LETTERS = 200  # of a description; our choice, other sites cut longer ones
GOALS = re.compile(r"^\*\*(You will be able to)\*\*\n+((?:- .+\n?)+)", re.MULTILINE)
MARKUP = re.compile(r"\[([^\]]*)\]\([^)]*\)|[`*$]")  # a link, or a sign around words


def add_card(notebook: NotebookNode, name: str, root: Path, folder: Path) -> Path | None:
    """Write the card of an executed chapter into the staging folder, and name it in the chapter.

    A chapter without a figure keeps the card of the whole site.

    Args:
        name: of the chapter's file, without its extension.
        root: of the book, whose settings have the address of the site.
        folder: the staging folder.

    Returns:
        the file, if there is one.
    """
    found = first_figure(notebook)
    if found is None:
        return None
    picture, alt = found
    target = folder / FOLDER / f"{name}.png"
    content = card(picture)
    if not target.exists() or target.read_bytes() != content:  # otherwise it keeps its time
        write_bytes(target, content)
    site = book.settings(root).get("html", {}).get("baseurl", "")
    place = target.relative_to(folder / "book").as_posix()
    notebook.metadata |= {"og:image": site + place, "og:image:alt": alt}
    return target


def describe(notebook: NotebookNode) -> None:
    """Name the description of a chapter in its metadata, for search engines and for other sites."""
    if text := description(notebook):
        notebook.metadata["og:description"] = text
        notebook.metadata["myst"] = {"html_meta": {"description": text}}


def description(notebook: NotebookNode) -> str:
    """Return a sentence with the first goal of a chapter, and the next ones up to `LETTERS`.

    A chapter without goals has the empty description.
    """
    found = GOALS.search(notebook.cells[0].source)
    if found is None:
        return ""
    goals = [goal.rstrip(",.") for goal in found[2].removeprefix("- ").strip().split("\n- ")]
    text, *others = (MARKUP.sub(r"\1", goal) for goal in goals)
    text = f"{found[1]} {text}"
    for goal in others:
        if len(text) + len(goal) + len("; .") > LETTERS:
            break
        text += f"; {goal}"
    return f"{text}."


def first_figure(notebook: NotebookNode) -> tuple[bytes, str] | None:
    """Return the file and the alt text of the first image in the outputs of a chapter."""
    for cell in book.code_cells(notebook):
        for output in cell.outputs:
            page = BeautifulSoup(output.get("data", {}).get("text/html", ""), "html.parser")
            image = page.select_one("figure img[src^='data:image/']")
            if image is not None:
                _, _, content = str(image["src"]).partition("base64,")
                return base64.b64decode(content), str(image.get("alt", ""))
    return None


def card(picture: bytes) -> bytes:
    """Return a picture as a PNG of `SIZE`, whole and on white."""
    with Image.open(io.BytesIO(picture)) as image:
        inside = SIZE[0] - 2 * MARGIN, SIZE[1] - 2 * MARGIN
        small = ImageOps.contain(image.convert("RGBA"), inside, Image.Resampling.LANCZOS)
    canvas = Image.new("RGB", SIZE, "white")
    place = (SIZE[0] - small.width) // 2, (SIZE[1] - small.height) // 2
    canvas.paste(small, place, small)
    file = io.BytesIO()
    canvas.save(file, "PNG", optimize=True)
    return file.getvalue()
